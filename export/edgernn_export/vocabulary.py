"""The words that options of the commands may have. Imports nothing, as `--help` shows them."""

QUANTIZATIONS = ("none", "float16", "int8", "int8-dynamic", "int4")
"""How weights are stored."""
AUTO = "auto"
"""All of them measured, and one chosen."""
GOALS = ("size", "latency", "balanced")
"""What is looked for then."""

TASKS = ("none", "forecast", "score")
"""What `adopt` makes."""
PREDICTS = ("next", "same")
"""What an adopted model may say of each channel: its next sample, or the one it has just seen."""
WARM_UP = 60
"""Of an adopted model, as many samples as the window view of a score looks back on."""

SETS = ("nab", "skab", "smd", "gecco")
"""That `benchmark` reads: the keys of `corpus.PROTOCOLS`."""
COMES_ALONG = {
    "edgernn": "detector.toml",
    "edgernn-levels": "levels.toml",
    "edgernn-general": "general.toml",
}
"""Detectors of `benchmark` and their training files, in `edgernn/benchmark/`."""
ALL = "all"
"""Of those, and of what is not trained."""
