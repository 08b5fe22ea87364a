"""Which field is which channel: paths, names, words, and what is refused in the file."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn.errors import EdgernnError
from edgernn_device.mapping import DEEPEST, Mapping

ZIGBEE2MQTT = {
    "temperature": 21.5,
    "humidity": 44.25,
    "contact": True,
    "state": "ON",
    "last_seen": "2026-01-05T05:40:18Z",
    "update": {"state": "idle"},
}
TASMOTA = {
    "Time": "2026-01-05T05:40:18",
    "ENERGY": {"Power": 184, "Voltage": 231},
    "DS18B20": {"Id": "0316A2791C1E", "Temperature": 38.4},
    "TempUnit": "C",
}
SHELLY = {
    "apower": 58.5,
    "temperature": {"tC": 41.2, "tF": 106.2},
    "aenergy": {"by_minute": [967.2, 0.0], "minute_ts": 1767591600},
}
TELEGRAF = {"metrics": [{"fields": {"load": 1.5}, "timestamp": 1767591600}, {"fields": {}}]}


def mapped(content: Any, names: dict[str, Any], channel: str = "", **more: Any) -> Any:
    return Mapping.parse(names, where="input", **more).unfold(content, channel)


def refusal(names: dict[str, Any], **more: Any) -> str:
    with pytest.raises(EdgernnError) as caught:
        Mapping.parse(names, where="agent.toml: input", **more)
    return str(caught.value).removeprefix("agent.toml: input.")


def test_an_empty_map_leaves_a_sample_as_it_is() -> None:
    assert mapped(SHELLY, {}) == SHELLY
    assert Mapping.parse({}, where="input").is_plain


def test_a_nested_field_becomes_a_channel_and_its_first_key_is_none_any_more() -> None:
    found = mapped(SHELLY, {"temp": "temperature.tC", "power": "apower"})
    assert found == {"temp": 41.2, "power": 58.5, "aenergy": SHELLY["aenergy"]}


def test_a_place_in_a_list_is_a_number_from_0() -> None:
    found = mapped(SHELLY, {"minute": "aenergy.by_minute.0", "none": "aenergy.by_minute.2"})
    assert found["minute"] == 967.2
    assert "none" not in found


def test_time_and_seq_may_be_nested_and_then_no_other_key_is_the_time() -> None:
    content = {"ts": 1, "meta": {"at": 2, "n": 3}, "flow": 4.0}
    assert mapped(content, {"time": "meta.at", "seq": "meta.n"}) == {
        "time": 2,
        "seq": 3,
        "flow": 4.0,
    }


def test_words_and_numbers_as_text_are_numbers_where_the_map_expects_a_channel() -> None:
    names = {name: name for name in ("temperature", "contact", "state", "door", "level")}
    content = {**ZIGBEE2MQTT, "door": " Open ", "level": "2.5e1"}
    found = mapped(content, names, words={"on": 1, "true": 1, "OPEN": 0.5})
    assert [found[name] for name in names] == [21.5, 1, 1, 0.5, 25.0]
    assert found["last_seen"] == ZIGBEE2MQTT["last_seen"]


@pytest.mark.parametrize(
    "text", ["", "nan", "inf", "1e999", "1_000", "0x10", "1,5", "٣", "21.5 °C", "x" * 99, "9" * 99]
)
def test_text_that_is_no_number_stays_text(text: str) -> None:
    assert mapped({"a": text}, {"a": "a"}) == {"a": text}


def test_a_key_with_a_dot_in_it_stands_in_a_list() -> None:
    assert mapped({"data": {"temp.c": 2.0}}, {"t": ["data", "temp.c"]}) == {"t": 2.0}


def test_two_channels_may_be_of_one_field_and_swap_names() -> None:
    assert mapped({"a": 1.0, "b": 2.0}, {"a": "b", "b": "a", "c": "a"}) == {
        "a": 2.0,
        "b": 1.0,
        "c": 1.0,
    }


def test_samples_may_stand_anywhere_in_a_message() -> None:
    found = mapped(TELEGRAF, {"load": "fields.load"}, samples="metrics")
    assert found == [{"load": 1.5, "timestamp": 1767591600}, {}]
    assert mapped({"a": [{"b": {"x": 1}}]}, {}, samples="a.0.b") == {"x": 1}
    with pytest.raises(LookupError, match=r"^nothing at metrics\.0\.none$"):
        mapped(TELEGRAF, {}, samples="metrics.0.none.more")


@pytest.mark.parametrize("content", [5, "text", None, [1, None], [[{}]]])
def test_what_is_no_object_is_left_for_the_payload_to_refuse(content: Any) -> None:
    assert mapped(content, {"a": "b"}) == content


@pytest.mark.parametrize("content", [21.5, "21.5", " 21.5\n", {"value": "21.5"}])
def test_a_bare_value_is_that_of_the_channel_its_topic_names(content: Any) -> None:
    assert mapped(content, {}, "temperature") == {"temperature": 21.5}


def test_a_channels_object_has_a_value_a_time_and_a_running_number() -> None:
    content = {"value": 1, "time": 2, "seq": 3, "unit": "C"}
    assert mapped(content, {}, "t") == {"t": 1, "time": 2, "seq": 3}


def test_an_object_without_a_value_is_several_channels_by_their_own_names() -> None:
    assert mapped({"temperature": "20.5", "ts": 7}, {}, "bme280") == {"temperature": 20.5, "ts": 7}


def test_paths_begin_with_the_channels_level_and_those_of_time_inside_the_message() -> None:
    names = {
        "temperature": "climate.data.t",
        "window": "contact",
        "power": "plug",
        "time": "data.at",
    }
    content: Any = {"data": {"t": 1.5, "at": 9}}
    assert mapped(content, names, "climate") == {"temperature": 1.5, "time": 9}
    assert mapped("off", names, "contact") == {"window": 0.0}
    content = {"value": 3, "ts": 8, "data": {"at": 7}}
    assert mapped(content, names, "plug") == {"power": 3, "time": 7}
    assert mapped(4, names, "heating") == {"heating": 4}


@pytest.mark.parametrize("channel", ["time", "timestamp", "ts", "seq"])
def test_a_topic_called_like_a_time_is_no_channel(channel: str) -> None:
    assert mapped(5, {}, channel) == {}


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({"ts": "a"}, "map: expected a channel, time or seq, got 'ts'"),
        ({"": "a"}, "map: expected a channel, time or seq, got ''"),
        ({"a": ""}, "map.a: expected keys between dots, such as data.temp_c, at most 16 of 1 to"),
        ({"a": "b..c"}, "map.a: expected keys between dots"),
        ({"a": []}, "map.a: expected keys between dots"),
        ({"a": ".".join("x" * (DEEPEST + 1))}, "map.a: expected keys between dots"),
        ({"a": "9" * 5000}, "map.a: expected keys between dots"),
    ],
)
def test_a_map_that_cannot_be_is_refused_with_its_place(
    names: dict[str, Any], sentence: str
) -> None:
    assert refusal(names).startswith(sentence)


def test_a_word_is_given_once() -> None:
    assert refusal({}, words={"On": 1, "ON": 2}).startswith("words: the same word twice")


def test_a_name_that_is_no_channel_of_the_artefact_is_refused() -> None:
    mapping = Mapping.parse({"time": "t", "flov": "data.flow"}, where="input")
    with pytest.raises(EdgernnError) as caught:
        mapping.check_names(["flow", "heat"], where="agent.toml: input")
    assert str(caught.value) == (
        "agent.toml: input.map.flov: no such channel; expected flow, heat, time or seq"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "0", "value", "time"]), inner, max_size=3)
    ),
)
PATHS = st.lists(st.sampled_from(["a", "b", "0", "1", "value"]), min_size=1, max_size=4)


@given(JSON, st.dictionaries(st.sampled_from(["a", "c", "time", "seq"]), PATHS), st.text())
def test_any_json_under_any_map_is_unfolded_and_never_changed(
    content: Any, names: dict[str, list[str]], channel: str
) -> None:
    before = json.dumps(content)
    mapped(content, names, channel)
    assert json.dumps(content) == before
