"""The engine on a real artefact: streams kept apart, and files that are no artefact refused."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from samples import read_samples

from edgernn.errors import EdgernnError
from edgernn_device.engine import FIRST_CAPACITY, Engine, Floats

TOLERANCE = 2e-3
"""Relative, of scores and expectations between two orders of the same float32 sums, as in
`edgernn.nets.checks`."""
STREAMS = 5
few = settings(max_examples=20)


@pytest.fixture(scope="module")
def golden(faulty_csv: Path) -> Floats:
    """(T, N, C) ten minutes around the beginning of a leak, each stream at another moment of it;
    with values missing."""
    _, x = read_samples(faulty_csv)
    x = np.stack([x[700 + 60 * n : 1300 + 60 * n] for n in range(STREAMS)], axis=1)
    x[np.random.default_rng(0).random(x.shape) < 0.05] = np.nan
    x[100:110, 2] = np.nan
    return x


@pytest.fixture
def engine(artefact: Path) -> Engine:
    return Engine.load(artefact)


class Scores(NamedTuple):
    """What a detector's artefact says of samples."""

    score: Floats
    contribution: Floats
    expected: Floats


def rows_of(engine: Engine, streams: int) -> NDArray[np.intp]:
    return np.array([engine.add_stream() for _ in range(streams)])


def run(engine: Engine, rows: NDArray[np.intp], *chunks: Floats) -> Scores:
    parts = [engine.run(rows, np.ascontiguousarray(chunk)) for chunk in chunks]
    return Scores(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def assert_same(a: Scores, b: Scores) -> None:
    for name, one, other in zip(Scores._fields, a, b, strict=True):
        np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


@few
@given(data=st.data())
def test_a_golden_stream_scores_the_same_in_any_chunks(
    artefact: Path, golden: Floats, data: st.DataObject
) -> None:
    engine = Engine.load(artefact)
    cuts = data.draw(st.lists(st.integers(1, len(golden) - 1), max_size=12, unique=True))
    whole = run(engine, rows_of(engine, STREAMS), golden)
    assert_same(whole, run(engine, rows_of(engine, STREAMS), *np.split(golden, sorted(cuts))))


def test_sample_by_sample_a_golden_stream_scores_the_same(engine: Engine, golden: Floats) -> None:
    whole = run(engine, rows_of(engine, STREAMS), golden)
    assert_same(whole, run(engine, rows_of(engine, STREAMS), *np.split(golden, len(golden))))


@few
@given(order=st.permutations(range(STREAMS)))
def test_a_stream_scores_the_same_in_any_row_of_any_batch(
    artefact: Path, golden: Floats, order: list[int]
) -> None:
    engine = Engine.load(artefact)
    together = run(engine, rows_of(engine, STREAMS), golden)
    rows = rows_of(engine, STREAMS)[::-1]
    shuffled = run(engine, rows[order], golden[:, order])
    np.testing.assert_allclose(
        shuffled.score, together.score[:, order], rtol=TOLERANCE, atol=TOLERANCE
    )


def test_a_golden_stream_scores_nan_where_nothing_was_observed(
    engine: Engine, golden: Floats
) -> None:
    score = run(engine, rows_of(engine, STREAMS), golden).score
    assert np.array_equal(np.isnan(score), np.isnan(golden).all(axis=-1))


def test_a_step_leaves_the_rows_of_other_streams_as_they_were(
    engine: Engine, golden: Floats
) -> None:
    rows = rows_of(engine, STREAMS)
    run(engine, rows, golden[:50])
    before = engine.state_of(int(rows[3]))
    run(engine, rows[[0, 4]], golden[50:60, [0, 4]])
    after = engine.state_of(int(rows[3]))
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_reset_forgets_all_that_a_stream_has_seen(engine: Engine, golden: Floats) -> None:
    rows = rows_of(engine, 2)
    first = run(engine, rows, golden[:50, :2])
    for row in rows:
        engine.reset(int(row))
    again = run(engine, rows, golden[:50, :2])
    assert np.array_equal(first.score, again.score, equal_nan=True)


def test_a_row_given_back_is_fresh_for_the_next_stream(engine: Engine, golden: Floats) -> None:
    fresh = engine.state_of(engine.add_stream())
    row = engine.add_stream()
    run(engine, np.array([row]), golden[:50, :1])
    engine.remove_stream(row)
    assert engine.add_stream() == row
    assert all(np.array_equal(fresh[name], value) for name, value in engine.state_of(row).items())


def test_a_growing_arena_keeps_every_memory(engine: Engine, golden: Floats) -> None:
    rows = rows_of(engine, STREAMS)
    run(engine, rows, golden[:50])
    before = [engine.state_of(int(row)) for row in rows]
    rows_of(engine, 4 * FIRST_CAPACITY)
    for row, state in zip(rows, before, strict=True):
        after = engine.state_of(int(row))
        assert all(np.array_equal(state[name], after[name]) for name in state)


def test_no_two_streams_share_a_row(engine: Engine) -> None:
    rows = rows_of(engine, 5 * FIRST_CAPACITY)
    assert len(set(rows.tolist())) == 5 * FIRST_CAPACITY


def test_a_memory_put_back_goes_on_where_it_was_taken(engine: Engine, golden: Floats) -> None:
    row, other = (np.array([engine.add_stream()]) for _ in range(2))
    run(engine, row, golden[:200, :1])
    engine.set_state(int(other[0]), engine.state_of(int(row[0])))
    here, there = (run(engine, r, golden[200:, :1]).score for r in (row, other))
    assert np.array_equal(here, there, equal_nan=True)


def test_a_memory_taken_out_is_a_copy(engine: Engine, golden: Floats) -> None:
    row = engine.add_stream()
    taken = engine.state_of(row)
    run(engine, np.array([row]), golden[:9, :1])
    assert all(not value.any() for value in taken.values())


def test_the_hash_and_size_are_the_files(artefact: Path, engine: Engine) -> None:
    content = artefact.read_bytes()
    assert engine.hash == hashlib.sha256(content).hexdigest()
    assert engine.size_bytes == len(content)


def refusal(content: bytes) -> str:
    with pytest.raises(EdgernnError) as caught:
        Engine(content, where="a.onnx")
    return str(caught.value)


def changed(artefact: Path, old: bytes, new: bytes) -> bytes:
    """The artefact with a few bytes of its card changed, and so of the same length."""
    content = artefact.read_bytes()
    start = content.index(b'{"version":') - 100
    end = content.index(b'"provenance":', start)
    assert len(old) == len(new)
    assert content.count(old, start, end) == 1
    return content[:start] + content[start:end].replace(old, new) + content[end:]


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EdgernnError, match=r"a\.onnx: no such file$"):
        Engine.load(tmp_path / "a.onnx")


def test_a_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EdgernnError, match=r"is a folder, expected an \.onnx file"):
        Engine.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00", b"hello", bytes(range(256)) * 40, b"\xff" * 99])
def test_bytes_that_are_no_onnx_file_are_a_sentence(content: bytes) -> None:
    assert refusal(content).startswith("a.onnx: not a readable ONNX file: ")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_artefact_is_a_sentence(artefact: Path, share: float) -> None:
    content = artefact.read_bytes()
    assert refusal(content[: int(share * len(content))]).startswith("a.onnx: ")


def test_a_graph_whose_names_are_no_text_is_a_sentence(artefact: Path) -> None:
    content = artefact.read_bytes().replace(b"contribution", b"\xffontribution")
    assert refusal(content) == "a.onnx: damaged graph: a name in it is no text"


def test_an_onnx_file_without_a_card_is_a_sentence(artefact: Path) -> None:
    without = changed(artefact, b"\x0a\x07edgernn\x12", b"\x0a\x07another\x12")
    assert refusal(without) == (
        "a.onnx: an ONNX file without an edgernn card; it was not written by `edgernn export`"
    )


def test_a_card_of_a_newer_version_is_refused(artefact: Path) -> None:
    newer = changed(artefact, b'"version":2,', b'"version":3,')
    assert "upgrade edgernn on this device" in refusal(newer)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"state.layer.0.h"', b'"state.layer.1.h"'), (b'"shape":[16]', b'"shape":[17]')],
)
def test_a_card_with_other_states_than_the_graph_is_refused(
    artefact: Path, old: bytes, new: bytes
) -> None:
    assert refusal(changed(artefact, old, new)).startswith("a.onnx: the graph takes {'x': [6], ")


def test_a_card_with_fewer_channels_than_the_graph_is_refused(artefact: Path) -> None:
    content = artefact.read_bytes()
    start = content.index(b'{"name":"speed"')
    end = content.index(b"}", start) + 1
    fewer = content[: start - 1] + b" " * (end - start + 1) + content[end:]
    assert "its card says {'x': [5], " in refusal(fewer)


def test_one_engine_is_not_disturbed_by_another(artefact: Path, golden: Floats) -> None:
    one, other = (Engine.load(artefact) for _ in range(2))
    rows = rows_of(one, STREAMS), rows_of(other, STREAMS)
    parts = []
    for chunk in np.split(golden, 4):
        parts.append(run(one, rows[0], chunk).score)
        run(other, rows[1], -chunk)
    alone = Engine.load(artefact)
    expected = run(alone, rows_of(alone, STREAMS), *np.split(golden, 4)).score
    assert np.array_equal(np.concatenate(parts), expected, equal_nan=True)
