"""A run against a recording: scores, metrics, cross-validation, a page."""
