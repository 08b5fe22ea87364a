"""The command benchmark: detectors measured on public sets as they ship."""
