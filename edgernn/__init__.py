"""Recurrent anomaly detectors, from recordings of a healthy machine to alerts over MQTT."""

__version__ = "0.1.0"
__all__ = ["__version__"]
