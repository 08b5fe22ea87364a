"""Alarms and scores against labels, as numbers. Whatever has nothing to count is None, never 0."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgernn.evaluation.curves import Ranking, rank
from edgernn.evaluation.evaluate import ScoredTrack
from edgernn.evaluation.quadrants import Quadrants, count, share
from edgernn.evaluation.vus import soft_width, vus_pr
from edgernn.times import DAY_S

FALSE = "false"
"""The verdict on an alarm outside every fault and its aftermath."""

Bools = NDArray[np.bool_]


class FaultFound(msgspec.Struct, frozen=True):
    """What became of one labelled stretch."""

    stream: str
    label: str
    start_s: float
    end_s: float
    outcome: Literal["found", "on_already", "missed", "unscored"]
    """"on_already": it began with the alarm on, which is luck, not detection. "unscored": not one
    row of it has a score, so nothing was said of it."""
    delay_s: float | None
    """Of one that was found: from its start to the first alert within it. A detector that speaks
    of a sample some samples later alerts that much later, and that counts."""


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """How well rows, and faults, are told apart. Only rows with a score count."""

    faults_total: int | None
    """With at least one scored row."""
    faults_found: int | None
    """During which an alarm went on that was off when they began."""
    on_already: int | None
    """Faults that began with the alarm on: neither found nor missed."""
    faults_unscored: int | None
    """Without one scored row: they count nowhere."""
    median_delay_s: float | None
    """Of the faults that were found."""
    precision: float | None
    recall: float | None
    f1: float | None
    auc_pr: float | None
    """Average precision of the scores, over all thresholds."""
    auc_roc: float | None
    vus_pr: float | None
    """Volume under the precision-recall surface."""
    best_f1: float | None
    """The best possible, looks at the labels: of `score >= best_f1_threshold`, without an alarm's
    hysteresis. No detector knows this threshold beforehand."""
    best_f1_threshold: float | None


class Kind(Detection, frozen=True, kw_only=True):
    """One kind of fault against the healthy rows; rows of other kinds do not count."""

    label: str


class Metrics(Detection, frozen=True, kw_only=True):
    """A whole recording. Whatever needs labels is None without them."""

    rows: int
    scored_rows: int
    scored_hours: float
    healthy_hours: float | None
    """Scored, outside every fault and its aftermath."""
    alarms: int
    alarms_per_day: float | None
    """Over all scored rows, faulty or not."""
    false_alarms: int | None
    """Alarms that went on in healthy hours."""
    false_alarms_per_day: float | None
    """Per healthy day: what the budget is about."""
    false_alarm_rate: float | None
    """FP / (FP + TN), over rows."""
    missed_alarm_rate: float | None
    """FN / (FN + TP), over rows."""
    vus_window: int
    """Widest fading of the labels in `vus_pr`, rows: the cycle of the first channel."""
    kinds: tuple[Kind, ...]
    """In order of their names."""
    faults: tuple[FaultFound, ...]


class Rows(msgspec.Struct, frozen=True):
    """The rows of all streams, one below the other."""

    score: NDArray[np.float32]
    """(T,) NaN = does not count."""
    label: NDArray[np.str_]
    """(T,) "" = healthy."""
    is_on: Bools
    """(T,)"""

    def only(self, label: str) -> "Rows":
        """One kind of fault and the healthy rows; the score of all others is NaN."""
        is_asked = (self.label == "") | (self.label == label)
        return Rows(np.where(is_asked, self.score, np.float32(np.nan)), self.label, self.is_on)

    @property
    def faulty(self) -> Bools:
        return np.asarray(self.label != "")

    @property
    def ranking(self) -> Ranking | None:
        """None where there is nothing to tell apart."""
        return rank(self.score, self.faulty)


def measure(scored: Sequence[ScoredTrack], *, aftermath_s: float) -> Metrics:
    """Compare alarms and scores with labels. The `aftermath_s` from a fault's end on are no healthy
    time, and an alarm then is not false: the machine is only then returning to what the detector
    knows as healthy."""
    has_labels = any(one.track.label is not None for one in scored)
    width = soft_width(scored[0].track.x[:, 0])
    rows = rows_of(scored, apart=width + 1)
    found = [fault for one in scored for fault in _faults(one)]
    alarms = sum(edge.is_on for one in scored for edge in one.edges)
    false = sum(_false_alarms(one, aftermath_s) for one in scored)
    counts = np.isfinite(rows.score)
    healthy_s = sum(_duration(one, ~_excused(one, one.track.time_s, aftermath_s)) for one in scored)
    scored_s = sum(_duration(one, np.ones(len(one.score), bool)) for one in scored)
    quadrants = _quadrants(rows)
    kinds = [
        Kind(
            label=label,
            **_detection(rows.only(label), [f for f in found if f.label == label], width),
        )
        for label in np.unique(rows.label[rows.faulty]).tolist()
    ]
    return Metrics(
        **_detection(rows, found if has_labels else None, width),
        rows=sum(len(one.score) for one in scored),
        scored_rows=int(counts.sum()),
        scored_hours=scored_s / 3600,
        healthy_hours=healthy_s / 3600 if has_labels else None,
        alarms=alarms,
        alarms_per_day=share(alarms, scored_s / DAY_S),
        false_alarms=false if has_labels else None,
        false_alarms_per_day=share(false, healthy_s / DAY_S) if has_labels else None,
        false_alarm_rate=quadrants.false_alarm_rate if has_labels else None,
        missed_alarm_rate=quadrants.missed_alarm_rate if has_labels else None,
        vus_window=width,
        kinds=tuple(kinds),
        faults=tuple(found),
    )


def rows_of(scored: Sequence[ScoredTrack], *, apart: int = 0) -> Rows:
    """The rows of all streams, with `apart` rows without a score after each stream."""
    parts: list[tuple[Any, Any, Any]] = []
    for one in scored:
        label = one.track.label
        label = np.full(len(one.score), "") if label is None else label
        parts.append((one.score, label, one.is_on))
        parts.append(
            (np.full(apart, np.nan, np.float32), np.full(apart, ""), np.zeros(apart, bool))
        )
    score, label, is_on = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return Rows(score, label, is_on)


def _detection(rows: Rows, found: list[FaultFound] | None, width: int) -> dict[str, Any]:
    """The fields of `Detection`; `found` None = there are no labels."""
    if found is None:
        return dict.fromkeys(Detection.__struct_fields__)
    quadrants = _quadrants(rows)
    delays = [fault.delay_s for fault in found if fault.delay_s is not None]
    outcomes = [fault.outcome for fault in found]
    unscored = outcomes.count("unscored")
    ranking = rows.ranking
    return {
        "faults_total": len(found) - unscored,
        "faults_found": outcomes.count("found"),
        "on_already": outcomes.count("on_already"),
        "faults_unscored": unscored,
        "median_delay_s": float(np.median(delays)) if delays else None,
        "precision": quadrants.precision,
        "recall": quadrants.recall,
        "f1": quadrants.f1,
        "vus_pr": vus_pr(rows.score, rows.faulty, window=width),
        **{
            name: None if ranking is None else getattr(ranking, name)
            for name in ("auc_pr", "auc_roc", "best_f1", "best_f1_threshold")
        },
    }


def _quadrants(rows: Rows) -> Quadrants:
    """Over rows with a score."""
    counts = np.isfinite(rows.score)
    return count(rows.is_on[counts], rows.faulty[counts])


def _faults(one: ScoredTrack) -> list[FaultFound]:
    """Every run of one label, and what became of it."""
    label, time_s = one.track.label, one.track.time_s
    if label is None or not len(label):
        return []
    on_times = np.array([edge.time_s for edge in one.edges if edge.is_on])
    found = []
    changes = np.flatnonzero(label[1:] != label[:-1]) + 1
    for start, end in zip([0, *changes], [*changes, len(label)], strict=True):
        if label[start] == "":
            continue
        outcome: Literal["found", "on_already", "missed", "unscored"] = "missed"
        delay_s = None
        if not np.isfinite(one.score[start:end]).any():
            outcome = "unscored"
        elif len(on := np.flatnonzero(one.is_on[start:end])):
            edge_s = on_times[on_times <= time_s[start + on[0]]][-1]
            outcome = "on_already" if edge_s < time_s[start] else "found"
            delay_s = float(edge_s + one.lag_s - time_s[start]) if outcome == "found" else None
        found.append(
            FaultFound(
                stream=one.track.stream,
                label=str(label[start]),
                start_s=float(time_s[start]),
                end_s=float(time_s[end - 1]),
                outcome=outcome,
                delay_s=delay_s,
            )
        )
    return found


def verdicts(one: ScoredTrack, aftermath_s: float) -> list[str]:
    """Of every alarm that went on, in order: "in leak", "after leak", or "false"."""
    faults, said = _faults(one), []
    for edge in one.edges:
        if not edge.is_on:
            continue
        near = [f for f in faults if f.start_s <= edge.time_s <= f.end_s + aftermath_s]
        within = [f for f in near if edge.time_s <= f.end_s]
        about = (within or near)[:1]
        said += [f"{'in' if within else 'after'} {f.label}" for f in about] or [FALSE]
    return said


def _false_alarms(one: ScoredTrack, aftermath_s: float) -> int:
    return verdicts(one, aftermath_s).count(FALSE)


def _excused(one: ScoredTrack, time_s: NDArray[np.float64], aftermath_s: float) -> Bools:
    """Which times (T,), rising, lie in a fault or its aftermath, both ends included."""
    is_within = np.zeros(len(time_s), bool)
    for fault in _faults(one):
        first = np.searchsorted(time_s, fault.start_s)
        is_within[first : np.searchsorted(time_s, fault.end_s + aftermath_s, side="right")] = True
    return is_within


def _duration(one: ScoredTrack, rows: Bools) -> float:
    """Seconds of these rows (T,) that have a score."""
    time_s = one.track.time_s
    period_s = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.0
    return float((rows & np.isfinite(one.score)).sum()) * period_s
