"""`edgernn inspect`: the card, what the file is made of, JSON, and the picture."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from edgernn.card import Card
from edgernn_device.anatomy import Anatomy, dissect
from edgernn_device.cli import inspect
from edgernn_device.engine import Engine


@pytest.fixture(scope="module")
def anatomy(artefact: Path) -> Anatomy:
    return dissect(artefact.read_bytes())


def said(*words: object) -> str:
    done = CliRunner().invoke(inspect, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return done.output


def test_the_parts_add_up_to_the_file(artefact: Path, anatomy: Anatomy) -> None:
    assert sum(anatomy.parts.values()) == artefact.stat().st_size
    assert anatomy.parts["signature"] == 0
    assert min(anatomy.parts[part] for part in ("weights", "card", "golden", "graph")) > 500


def test_every_weight_is_listed_as_it_is_stored(anatomy: Anatomy) -> None:
    stored = {(one.shape, one.stored): one.size_bytes for one in anatomy.weights}
    assert stored[(1, 48, 12), "int8"] == 48 * 12  # what sensors enter by
    assert stored[(1, 48, 16), "int8"] == 48 * 16
    assert {one.stored for one in anatomy.weights} == {"int8"}


def test_operators_are_counted(anatomy: Anatomy) -> None:
    assert anatomy.operators["GRU"] == 1
    assert list(anatomy.operators.values()) == sorted(anatomy.operators.values(), reverse=True)


def test_the_page_shows_card_states_bytes_weights_and_origin(artefact: Path) -> None:
    page = said(artefact)
    for part in ("channels", "memory", "bytes      weights", "operators", "made", "data  ", "GRU"):
        assert part in page


def test_json_holds_the_whole_card_and_the_anatomy(artefact: Path) -> None:
    found = msgspec.json.decode(said(artefact, "--json"))
    card = Engine.load(artefact).card
    assert msgspec.convert(found["card"], Card) == card
    assert found["bytes"] == artefact.stat().st_size
    assert {"operators", "weights", "parts", "sha256", "signed_by"} <= set(found)


def test_the_picture_shows_every_stage_and_state(artefact: Path, tmp_path: Path) -> None:
    said(artefact, "--svg", tmp_path / "stages.svg")
    root = ElementTree.parse(tmp_path / "stages.svg").getroot()
    texts = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {"samples", "scale", "network", "forecast", "surprise", "score"} <= texts
    for state in Engine.load(artefact).card.states:
        assert any(text and text.startswith(f"{state.name[6:]}: ") for text in texts)
