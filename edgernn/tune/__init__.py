"""Tuning: trials of a training file with other values, on Optuna."""
