"""Detectors in torch: what is trained here is, node for node, what the device runs."""
