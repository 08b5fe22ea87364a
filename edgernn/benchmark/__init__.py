"""Public benchmarks: their folders, their official figures, and the plain methods to beat."""
