"""The evaluation of a detector as one HTML page that needs nothing beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgernn import __version__
from edgernn.alarm import Edge, Limits
from edgernn.calibration import parse_budget
from edgernn.card import AlarmRule, Card
from edgernn.envelope import COLUMNS
from edgernn.evaluation.evaluate import ScoredTrack
from edgernn.evaluation.figures import draw_alarm, draw_curves, draw_stream
from edgernn.evaluation.folds import Folds
from edgernn.evaluation.metrics import FALSE, Metrics, rows_of, verdicts
from edgernn.report import make_environment
from edgernn.times import DAY_S, format_time

TEMPLATE = Path(__file__).with_name("page.html")
MOST_STREAMS = 8
"""With pictures, those with alarms or faults first."""
MOST_ALARMS = 12
"""With a picture, shared by the streams; at least one and at most four of each, the highest."""
MOST_COLUMNS = 6000
"""Of envelopes, shared by the channels of all streams; a page stays near a megabyte."""
MOST_FAULTS = 200
NAMED_CHANNELS = 3
AROUND = 0.5
"""Of an alarm's length, drawn on either side of it, and at least a warm-up."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that a page tells."""

    source: str
    """Name of the recording."""
    card: Card
    rule: AlarmRule
    limits: Limits
    scored: Sequence[ScoredTrack]
    metrics: Metrics
    folds: Folds | None = None

    @property
    def budget_per_day(self) -> float:
        return parse_budget(self.rule.false_alarms) * DAY_S


@dataclass(frozen=True, slots=True)
class AlarmShown:
    """One alarm from on to off, or to the end of the recording."""

    on_s: float
    off_s: float
    is_over: bool
    peak: float
    """The highest score."""
    verdict: str
    """By the labels: "in leak", "after leak", "false"; "" without labels."""
    blamed: str
    """The channels behind it: "flow 56 %, pressure 20 %"."""
    picture: str


@dataclass(frozen=True, slots=True)
class StreamShown:
    """One stream with its highest alarms in order of time."""

    name: str
    picture: str
    alarms: Sequence[AlarmShown]
    alarms_left_out: int


def write_page(path: Path, one: Evaluation) -> None:
    """Render the page. Long recordings are drawn as envelopes, so its size does not grow with
    their length."""
    environment = make_environment(TEMPLATE.parent)
    environment.filters |= {"number": number, "time": _time, "duration": duration, "short": short}
    ranking = None if one.metrics.faults_total is None else rows_of(one.scored).ranking
    shown = sorted(one.scored, key=_worth_a_look, reverse=True)[:MOST_STREAMS]
    text = environment.get_template(TEMPLATE.name).render(
        one=one,
        metrics=one.metrics,
        streams=[_stream(one, scored, among=len(shown)) for scored in shown],
        left_out=len(one.scored) - len(shown),
        curves=None if ranking is None else draw_curves(ranking, one.metrics),
        most_faults=MOST_FAULTS,
        version=__version__,
    )
    path.write_text(text, encoding="utf-8")


def number(value: float | None, digits: int = 3) -> str:
    """For a person; what is not there is said to be so."""
    if value is None:
        return "not available"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """ "45 s", "12 min 30 s", "3 h 5 min", "4 d 2 h"."""
    if seconds is None:
        return "not available"
    if seconds < 60:
        return f"{seconds:g} s"
    left, parts = round(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def short(value: float | None) -> str:
    """Four digits, for tables of many numbers."""
    return "–" if value is None else f"{value:.4g}"


def _stream(one: Evaluation, scored: ScoredTrack, *, among: int) -> StreamShown:
    """`among` so many streams on the page."""
    edges = scored.edges
    ends = [edge.time_s for edge in edges[1:]] + [float(scored.track.time_s[-1])]
    spans = (
        [(on, off_s) for on, off_s in zip(edges, ends, strict=True) if on.is_on] if edges else []
    )
    peaks = {on: _peak(scored, on.time_s, off_s) for on, off_s in spans}
    most = min(max(MOST_ALARMS // among, 1), 4)
    verdict: dict[Edge, str] = {}
    if scored.track.label is not None:
        aftermath_s = one.card.warm_up * one.card.period_s
        verdict = dict(zip(peaks, verdicts(scored, aftermath_s), strict=True))
    highest = sorted(peaks, key=lambda on: (verdict.get(on) != FALSE, -peaks[on]))[:most]
    alarms = [
        _alarm(
            one,
            scored,
            on.time_s,
            off_s,
            peak=peaks[on],
            is_over=on is not edges[-1],
            verdict=verdict.get(on, ""),
        )
        for on, off_s in spans
        if on in highest
    ]
    columns = min(max(MOST_COLUMNS // (among * len(one.card.channels)), COLUMNS // 4), COLUMNS)
    picture = draw_stream(one.card, scored, columns=columns)
    return StreamShown(scored.track.stream, picture, alarms, len(spans) - len(alarms))


def _alarm(
    one: Evaluation,
    scored: ScoredTrack,
    on_s: float,
    off_s: float,
    *,
    peak: float,
    is_over: bool,
    verdict: str,
) -> AlarmShown:
    margin_s = max(AROUND * (off_s - on_s), one.card.warm_up * one.card.period_s)
    around = _rows(scored, on_s - margin_s, off_s + margin_s)
    return AlarmShown(
        on_s=on_s,
        off_s=off_s,
        is_over=is_over,
        peak=peak,
        verdict=verdict,
        blamed=_blamed(one.card, scored, _rows(scored, on_s, off_s)),
        picture=draw_alarm(one.card, scored, around),
    )


def _rows(scored: ScoredTrack, start_s: float, end_s: float) -> slice:
    """Both ends included."""
    time_s = scored.track.time_s
    first, last = np.searchsorted(time_s, start_s), np.searchsorted(time_s, end_s, side="right")
    return slice(int(first), int(last))


def _peak(scored: ScoredTrack, on_s: float, off_s: float) -> float:
    return float(np.nanmax(scored.score[_rows(scored, on_s, off_s)]))


def _blamed(card: Card, scored: ScoredTrack, rows: slice) -> str:
    part = np.nansum(scored.contribution[rows] * scored.score[rows, None], axis=0)
    share = part / max(float(part.sum()), 1e-9)
    order = np.argsort(-share, kind="stable")[:NAMED_CHANNELS]
    return ", ".join(f"{card.channels[c].name} {share[c]:.0%}" for c in order)


def _worth_a_look(scored: ScoredTrack) -> int:
    """Alarms, and whether there is a fault."""
    label = scored.track.label
    return sum(edge.is_on for edge in scored.edges) + int(label is not None and any(label != ""))


def _time(time_s: float) -> str:
    return format_time(time_s)[:19].replace("T", " ")
