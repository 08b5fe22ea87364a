"""Public benchmarks: their files, their official figures, and simple detectors to compare with."""
