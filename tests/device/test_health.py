"""Health: every reason is known and documented, and the report is what the docs say."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn_device.health import (
    BUCKETS_S,
    IRREGULAR,
    Health,
    Histogram,
    by_unit,
    resident_bytes,
    unit_of,
)

ROOT = Path(__file__).parents[2]
SAID = re.compile(r'(?:PayloadError|_refuse|_remark)\(\s*("\w+")')
COUNTED = re.compile(r"(?:counts|refused|dropped)\[([^\]]*)\]")
"""Where the code names a reason; a bracket may choose between two."""


def sources() -> str:
    return "\n".join(path.read_text() for path in ROOT.glob("device/edgernn_device/*.py"))


@pytest.mark.skipif(not (ROOT / "device").is_dir(), reason="needs the checkout")
def test_every_reason_in_the_code_has_a_unit_and_a_meaning() -> None:
    places = [*SAID.findall(sources()), *COUNTED.findall(sources())]
    found = {name for place in places for name in re.findall(r'"(\w+)"', place)}
    assert len(found) > 15
    assert found <= set(IRREGULAR)


def test_the_docs_have_each_reason_with_its_unit() -> None:
    table = text_of("agent.md").split("| reason | unit | |")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", table, re.MULTILINE)
    said = {name: (unit, meaning) for name, unit, meaning in rows}
    assert said == {name: tuple(one) for name, one in IRREGULAR.items()}


def test_the_docs_have_each_key_of_the_health_topic() -> None:
    section = text_of("agent.md").split("## Health")[1].split("\n## ")[0]
    keys = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    known = [field.encode_name for field in msgspec.structs.fields(Health)]
    assert [key for key in keys if key not in IRREGULAR] == known


@given(st.lists(st.floats(0, 100), max_size=30))
def test_every_duration_is_in_one_bucket_and_none_above_its_bound(durations: list[float]) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    assert sum(histogram.counts) == len(durations)
    assert histogram.sum_s == pytest.approx(sum(durations))
    for k, bound in enumerate(BUCKETS_S):
        assert sum(histogram.counts[: k + 1]) == sum(one <= bound for one in durations)


def test_a_reason_that_never_occurred_is_counted_as_0_and_an_unknown_one_is_an_event() -> None:
    found = by_unit({"late": 3, "news": 2})
    assert found["samples"]["late"] == 3
    assert found["messages"]["not_json"] == 0
    assert (found["events"]["news"], unit_of("news")) == (2, "events")


def test_resident_memory_is_that_of_a_running_python() -> None:
    assert 5e6 < resident_bytes() < 1e11


def text_of(page: str) -> str:
    return (ROOT / "docs" / page).read_text()
