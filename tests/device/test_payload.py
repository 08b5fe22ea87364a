"""Bytes to samples: what comes in from anyone is samples, or one counted reason."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgernn_device.payload import (
    LARGEST_PAYLOAD,
    LARGEST_TIME_S,
    MOST_SAMPLES,
    PayloadError,
    RawSample,
    parse,
    samples_of,
)

NOW_S = 1_700_000_000.0
REASONS = {
    "too_large",
    "not_json",
    "not_samples",
    "bad_time",
    "bad_seq",
    "no_channel",
}
NUMBERS = st.integers() | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["time", "seq", "flow", "ts"]) | st.text(), inner)
    ),
    max_leaves=12,
)


def decode(payload: bytes, **notes: Any) -> list[RawSample]:
    return samples_of(parse(payload), received_s=NOW_S, **notes)


def decoded(content: Any) -> list[RawSample]:
    return decode(json.dumps(content).encode())


def refusal(payload: bytes) -> str:
    with pytest.raises(PayloadError) as caught:
        decode(payload)
    return caught.value.reason


@given(st.binary())
def test_any_bytes_are_samples_or_a_reason(payload: bytes) -> None:
    try:
        decode(payload)
    except PayloadError as error:
        assert error.reason in REASONS


@given(JSON)
def test_any_json_is_samples_or_a_reason(content: Any) -> None:
    try:
        samples = decoded(content)
    except PayloadError as error:
        assert error.reason in REASONS
    else:
        assert all(0 <= sample.time_s < LARGEST_TIME_S for sample in samples)


@given(
    st.dictionaries(
        st.text().filter(lambda key: key not in ("time", "timestamp", "ts", "seq")),
        st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_every_number_arrives_under_its_key(values: dict[str, float]) -> None:
    (sample,) = decoded(values)
    assert (sample.time_s, sample.seq, sample.values) == (NOW_S, None, values)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b'{"flow": nan}', "not_json"),
        (b'{"flow": NaN', "not_json"),
        (b'"NaN\xff"', "not_json"),
        (b'{"NaN":' * 10_000 + b"1" + b"}" * 10_000, "not_json"),
        (b'{"NaN": ' + b"9" * 5000 + b"}", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'"\xff"', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "not_json"),
        (b"5", "not_samples"),
        (b"null", "not_samples"),
        (b'"text"', "not_samples"),
        (b"[]", "not_samples"),
        (b"[1]", "not_samples"),
        (b'[{"flow": 1}, null]', "not_samples"),
        (b'{"time": "yesterday"}', "bad_time"),
        (b'{"time": null}', "bad_time"),
        (b'{"time": false}', "bad_time"),
        (b'{"time": []}', "bad_time"),
        (b'{"time": -1}', "bad_time"),
        (b'{"time": "1969-12-31T23:59:59Z"}', "bad_time"),
        (b'{"time": "9999-12-31T23:59:59-14:00"}', "bad_time"),
        (b'{"time": 1e300}', "bad_time"),
        (b'{"time": ' + b"9" * 400 + b"}", "bad_time"),
        (b'{"seq": -1}', "bad_seq"),
        (b'{"seq": 1.0}', "bad_seq"),
        (b'{"seq": true}', "bad_seq"),
        (b'{"seq": "1"}', "bad_seq"),
        (b'{"seq": 9223372036854775808}', "bad_seq"),
        (b'{"seq": ' + b"9" * 4000 + b"}", "bad_seq"),
        (b" " * (LARGEST_PAYLOAD + 1), "too_large"),
        (b"[" + b"{}," * MOST_SAMPLES + b"{}]", "too_large"),
    ],
)
def test_what_is_no_sample_is_refused_for_its_reason(payload: bytes, reason: str) -> None:
    assert refusal(payload) == reason


@pytest.mark.parametrize("payload", [b'{"flow": 1e999}', b'[{"flow": -1e400}]'])
def test_a_number_that_no_float_holds_is_infinite(payload: bytes) -> None:
    (sample,) = decode(payload)
    assert math.isinf(sample.values["flow"])


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b"[]", "an empty list"),
        (b"[1, 2, 3]", "a list with the number 1 in it"),
        (b'"on"', "text"),
        (b'{"flow": ', """b'{"flow": '"""),
        (b"", "nothing"),
    ],
)
def test_what_is_no_sample_is_named(payload: bytes, found: str) -> None:
    with pytest.raises(PayloadError) as caught:
        decode(payload)
    assert caught.value.detail == f"expected a JSON object or a list of them, got {found}"


def test_the_largest_payload_is_still_read() -> None:
    payload = b'{"flow": 1' + b" " * (LARGEST_PAYLOAD - 11) + b"}"
    assert len(decode(payload)) == 1


def test_as_many_samples_as_allowed_are_still_read() -> None:
    assert len(decode(b"[" + b"{}," * (MOST_SAMPLES - 1) + b"{}]")) == MOST_SAMPLES


def test_a_list_is_several_samples_in_their_order() -> None:
    samples = decoded([{"ts": 1, "flow": 1}, {"ts": 2, "flow": 2}])
    assert [(sample.time_s, sample.values["flow"]) for sample in samples] == [(1, 1), (2, 2)]


def test_a_message_is_taken_whole_or_not_at_all() -> None:
    assert refusal(b'[{"flow": 1}, {"flow": 1, "time": "x"}]') == "bad_time"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('"1"', "text"),
        ("true", "true or false"),
        ("[1]", "a list"),
        ("{}", "an object"),
        ("9" * 400, "an integer too large"),
    ],
)
def test_what_is_no_number_is_left_out_and_named(text: str, what: str) -> None:
    (sample,) = decode(f'{{"flow": {text}, "heat": 2}}'.encode())
    assert (sample.values, sample.odd) == ({"heat": 2.0}, {"flow": what})


def test_a_channel_that_is_no_number_is_missing_in_the_row() -> None:
    (sample,) = decoded({"flow": "high", "note": "all well"})
    assert np.isnan(sample.row(("flow",))).all()
    assert decoded({"flow": 1, "note": "all well"})[0].row(("flow",)) == [1.0]


def test_nan_and_infinity_are_read_though_json_has_no_such_words() -> None:
    (sample,) = decode(b'{"flow": NaN, "heat": -Infinity, "n": "x"}')
    assert math.isnan(sample.values["flow"])
    assert (sample.values["heat"], sample.odd) == (-math.inf, {"n": "text"})


def test_samples_of_a_list_without_times_are_a_period_apart_and_end_now() -> None:
    payload = b'[{"flow": 1}, {"flow": 2}, {"flow": 3, "time": 7}, {"flow": 4}]'
    samples = samples_of(parse(payload), received_s=100.0, period_s=0.5)
    assert [sample.time_s for sample in samples] == [98.5, 99.0, 7.0, 100.0]
    assert [sample.is_stamped for sample in samples] == [True, True, False, True]


def test_a_sample_says_how_it_came() -> None:
    (sample,) = decode(b'{"flow": 1}', heard_s=5.0, is_again=True)
    assert (sample.heard_s, sample.is_again, sample.is_stamped) == (5.0, True, True)


def test_null_is_a_missing_value() -> None:
    assert math.isnan(decoded({"flow": None})[0].values["flow"])


@pytest.mark.parametrize("key", ["time", "timestamp", "ts"])
@pytest.mark.parametrize(
    "value",
    [
        1_795_256_100,
        1_795_256_100.0,
        1_795_256_100_000,
        "1795256100",
        "2026-11-21T10:15:00Z",
        "2026-11-21T12:15:00+02:00",
        "2026-11-21 10:15:00",
    ],
)
def test_a_time_has_several_names_and_forms(key: str, value: Any) -> None:
    (sample,) = decoded({key: value, "flow": 1})
    assert (sample.time_s, sample.values) == (1_795_256_100.0, {"flow": 1.0})


def test_a_sample_without_a_time_has_the_time_it_was_received() -> None:
    assert decoded({"flow": 1})[0].time_s == NOW_S


def test_a_running_number_is_no_channel() -> None:
    (sample,) = decoded({"seq": 7, "flow": 1})
    assert (sample.seq, sample.values) == (7, {"flow": 1.0})


def test_a_row_is_in_the_order_of_the_channels_with_nan_where_nothing_was_sent() -> None:
    sample = decoded({"b": 2, "a": 1, "other": 9})[0]
    assert np.array_equal(sample.row(("a", "c", "b")), [1, np.nan, 2], equal_nan=True)


def test_a_sample_with_no_channel_of_the_detector_is_refused() -> None:
    with pytest.raises(PayloadError) as caught:
        decoded({"a": 1})[0].row(("flow", "heat"))
    assert caught.value.reason == "no_channel"
    assert caught.value.detail == "has a; expected flow, heat"


def test_a_sample_of_nulls_alone_is_a_sample() -> None:
    assert np.isnan(decoded({"flow": None})[0].row(("flow",))).all()
