"""The card: a round trip, and a sentence for each way in which one can be damaged."""

from typing import Any

import msgspec
import pytest
from cards import CARD, TAIL, make_card, make_tail
from hypothesis import given
from hypothesis import strategies as st

from edgernn.card import (
    CARD_VERSION,
    AlarmRule,
    Card,
    Channel,
    Provenance,
    State,
    Tail,
    decode_card,
    encode_card,
)
from edgernn.errors import EdgernnError

CLASSES = "two or more classes are for classify alone"
HORIZON = "a horizon above 0 is for forecast alone"
WORDS = st.text(max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(1e-6, 1e6)
POINTS = st.lists(POSITIVE, min_size=2, max_size=8).map(sorted).map(tuple)

TAILS = POINTS.flatmap(
    lambda knots: st.builds(
        Tail,
        view=WORDS,
        knots=st.just(knots),
        scores=st.just(knots),
        shape=POSITIVE,
        scale=POSITIVE,
        extremal_index=st.floats(0.01, 1.0),
    )
)
DETECTORS = st.builds(
    Card,
    version=st.just(CARD_VERSION),
    name=WORDS,
    task=st.just("anomaly"),
    network=WORDS,
    channels=st.lists(
        st.builds(Channel, WORDS, WORDS, NUMBERS, NUMBERS, st.integers(0, 10**9)),
        min_size=1,
        max_size=4,
        unique_by=lambda channel: channel.name,
    ).map(tuple),
    period_s=POSITIVE,
    max_gap_s=POSITIVE,
    warm_up=st.integers(100, 10_000),
    delay=st.integers(0, 100),
    classes=st.just(()),
    horizon=st.just(0),
    states=st.lists(
        st.builds(
            State, WORDS, st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple), NUMBERS
        ),
        max_size=3,
    ).map(tuple),
    tails=st.lists(TAILS, min_size=1, max_size=2).map(tuple),
    alarm=st.builds(AlarmRule, WORDS, POSITIVE, POSITIVE, POSITIVE),
    quantization=WORDS,
    tolerance=POSITIVE,
    provenance=st.builds(Provenance, WORDS, WORDS, WORDS, st.integers(0, 2**63 - 1), WORDS, WORDS),
)
OF_A_TASK: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {
            "task": st.just("classify"),
            "classes": st.lists(WORDS, min_size=2, max_size=4, unique=True).map(tuple),
            "tails": st.just(()),
        }
    ),
    st.fixed_dictionaries(
        {"task": st.just("forecast"), "horizon": st.integers(1, 1000), "tails": st.just(())}
    ),
)
CARDS = st.builds(
    lambda card, fields: msgspec.structs.replace(card, **fields), DETECTORS, OF_A_TASK
)


def refusal(text: str | bytes) -> str:
    with pytest.raises(EdgernnError) as caught:
        decode_card(text, where="pump.onnx")
    return str(caught.value)


@given(CARDS)
def test_a_card_is_the_same_after_writing_and_reading(card: Card) -> None:
    assert decode_card(encode_card(card), where="a") == card


def test_a_card_of_before_says_nothing_of_how_long_a_channel_stood_still() -> None:
    fields = msgspec.to_builtins(CARD)
    for channel in fields["channels"]:
        channel.pop("longest_still", None)
    found = decode_card(msgspec.json.encode(fields), where="a")
    assert [channel.longest_still for channel in found.channels] == [0, 0]


def test_a_newer_card_asks_for_a_newer_edgernn() -> None:
    newer = encode_card(make_card(version=CARD_VERSION + 1))
    assert refusal(newer) == (
        f"pump.onnx: card version {CARD_VERSION + 1}, this edgernn reads version {CARD_VERSION}; "
        "upgrade edgernn on this device"
    )


def test_an_older_card_asks_for_another_export() -> None:
    assert refusal(encode_card(make_card(version=0))).endswith("; export again")


def test_a_newer_card_is_known_by_its_version_even_if_its_fields_are_unknown() -> None:
    assert "upgrade edgernn" in refusal(f'{{"version": {CARD_VERSION + 1}, "layers": []}}')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"version": "1"}',
        '{"version": 2}',
        '{"version": 2, "name": 5}',
        b"\xff\xfe",
        b'{"version": 2, "name": "\xff"}',
        '{"version": 2, "name": ' + "[" * 100_000,
    ],
)
def test_damaged_json_is_a_sentence(text: str | bytes) -> None:
    assert refusal(text).startswith("pump.onnx: damaged card: ")


def test_an_unknown_field_is_named() -> None:
    fields = msgspec.to_builtins(CARD) | {"colour": "blue"}
    assert "unknown field `colour`" in refusal(msgspec.json.encode(fields))


@pytest.mark.parametrize("cut", [1, 10, 100, 400])
def test_a_truncated_card_is_a_sentence(cut: int) -> None:
    assert refusal(encode_card(CARD)[:-cut]).startswith("pump.onnx: damaged card: ")


FLOW = CARD.channels[0]
TWO_NAMES = "two channels of one name"
DELAY = "delay must be from 0 to warm_up"
EMPTY_SHAPE = "a state with an empty shape"
OUTSIDE = "a tail outside its range"
LENGTHS = "knots and scores differ in length"
FALLING = "knots that do not rise"
TOO_LARGE = "states of more than 4,000,000 numbers a stream"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"channels": ()}, "no channels"),
        ({"channels": (FLOW, FLOW)}, TWO_NAMES),
        (
            {"channels": (msgspec.structs.replace(FLOW, longest_still=-1),)},
            "longest_still must not be negative",
        ),
        ({"period_s": 0.0}, "period_s must be above 0"),
        ({"period_s": -1.0}, "period_s must be above 0"),
        ({"max_gap_s": -1.0}, "max_gap_s must not be negative"),
        ({"delay": -1}, DELAY),
        ({"delay": 4}, DELAY),
        ({"states": (State("state.layer.0.h", (4, 0), 0.0),)}, EMPTY_SHAPE),
        ({"states": (State("state.layer.0.h", (), 0.0),)}, EMPTY_SHAPE),
        ({"tails": ()}, "calibration is for anomaly alone"),
        ({"task": "guess"}, "task 'guess', expected one of anomaly, classify, forecast"),
        ({"classes": ("a", "b")}, CLASSES),
        ({"task": "classify", "tails": (), "classes": ("a",)}, CLASSES),
        ({"task": "classify", "tails": (), "classes": ("a", "a")}, "two classes of one name"),
        ({"task": "classify", "classes": ("a", "b")}, "calibration is for anomaly alone"),
        ({"horizon": 3}, HORIZON),
        ({"task": "forecast", "tails": ()}, HORIZON),
        ({"tails": (make_tail(knots=TAIL.knots[:-1]),)}, LENGTHS),
        ({"tails": (make_tail(knots=(), scores=()),)}, FALLING),
        ({"tails": (make_tail(knots=TAIL.knots[::-1]),)}, FALLING),
        ({"states": (State("state.layer.0.h", (2001, 2000), 0.0),)}, TOO_LARGE),
        ({"tolerance": -0.1}, "tolerance must not be negative"),
        ({"tails": (TAIL, make_tail(shape=0.0))}, OUTSIDE),
        ({"tails": (make_tail(scale=-1.0),)}, OUTSIDE),
        ({"tails": (make_tail(extremal_index=0.0),)}, OUTSIDE),
        ({"tails": (make_tail(extremal_index=1.01),)}, OUTSIDE),
    ],
)
def test_a_card_that_makes_no_sense_says_what_is_wrong(changes: dict[str, Any], what: str) -> None:
    assert refusal(encode_card(make_card(**changes))) == f"pump.onnx: damaged card: {what}"


def test_a_new_detector_recovers_after_30_periods_is_quiet_for_100_and_steered() -> None:
    rule = AlarmRule.for_period(0.5)
    assert rule == AlarmRule(
        "1/week", 0.0, recover_s=15.0, cooldown_s=0.0, quiet_s=50.0, steered=True
    )


def test_a_card_from_before_thresholds_steered_themselves_keeps_its_own() -> None:
    card = msgspec.json.decode(encode_card(make_card()))
    del card["alarm"]["steered"], card["alarm"]["quiet_s"]
    rule = decode_card(msgspec.json.encode(card), where="old.onnx").alarm
    assert (rule.steered, rule.quiet_s) == (False, 0.0)


def test_channel_names_are_in_the_order_of_the_channels() -> None:
    assert CARD.channel_names == ("flow", "heat")
