"""The artefact that comes with edgernn: it needs no training, and takes any channels."""

from pathlib import Path

GENERAL = "general"
"""In place of an artefact's path."""
GENERAL_FILE = Path(__file__).with_name("general.onnx")
"""Made by `make pretrained`."""


def artefact_path(model: str, base: Path) -> Path:
    """Where an artefact lies that an agent's settings name; paths are relative to `base`."""
    return GENERAL_FILE if model == GENERAL else base / model
