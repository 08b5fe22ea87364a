"""Detectors in torch: what is trained here is, node for node, what the device runs."""

from edgernn.nets.detector import Detector
from edgernn.nets.heads import HeadConfig
from edgernn.nets.networks import NETWORKS, NetworkConfig

__all__ = ["NETWORKS", "Detector", "HeadConfig", "NetworkConfig"]
