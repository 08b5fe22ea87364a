"""From recordings to a run: cutting, learning, calibration."""
