"""Models in torch: what is trained here is, node for node, what the device runs."""

from edgernn.nets.adapt import AdaptConfig
from edgernn.nets.classifier import Classifier
from edgernn.nets.detector import Detector
from edgernn.nets.forecaster import ForecastConfig, Forecaster
from edgernn.nets.heads import HeadConfig
from edgernn.nets.level_judge import LevelsConfig
from edgernn.nets.model import Model
from edgernn.nets.networks import NETWORKS, NetworkConfig

__all__ = [
    "NETWORKS",
    "AdaptConfig",
    "Classifier",
    "Detector",
    "ForecastConfig",
    "Forecaster",
    "HeadConfig",
    "LevelsConfig",
    "Model",
    "NetworkConfig",
]
