"""What methods said against the labels: the official figures of each set, per file and together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgernn.benchmark.method import Said
from edgernn.benchmark.nab import FilePoints, NabScore, ScoredFile, nab_scores, score_at
from edgernn.benchmark.profiles import LOW_FN, LOW_FP, STANDARD, Profile
from edgernn.benchmark.published import anomaly_score, onsets
from edgernn.benchmark.series import Bools, Corpus, Series, Truth
from edgernn.benchmark.skab import ChangeScore, JudgedFile, change_scores, point_wise
from edgernn.evaluation.curves import rank
from edgernn.evaluation.quadrants import Quadrants, count, share
from edgernn.evaluation.vus import soft_width, vus_pr

AFTERMATH = 60
"""Rows behind a labelled stretch in which an alarm is not false: things return to what is usual."""
FAR_LIMIT = 0.10
"""The false-alarm rate within which the best F1 is looked for."""
LENIENT = 1.5
"""Times the true number of channels, which may be named for a hit rate at 150 %."""

Floats = NDArray[np.float64]
Figures = dict[str, float | int | None]
"""Name → figure, None where there is nothing to count."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table: a method on one file, or on all of them."""

    method: str
    file: str
    """"" = the whole set."""
    figures: Figures


@dataclass(frozen=True, slots=True)
class Judged:
    """A series, its labels, and what a method said, as it is published."""

    series: Series
    truth: Truth
    said: Said
    score: Floats
    """(T,) of the score file."""

    @property
    def is_scored(self) -> Bools:
        """(T,) rows that official figures count."""
        return np.arange(len(self.score)) >= self.truth.scored_from


def judged(corpus: Corpus, said: Sequence[Said], *, quiet: int) -> list[Judged]:
    """Each series of the corpus with what was said of it."""
    each = zip(corpus.series, corpus.truths, said, strict=True)
    return [
        Judged(series, truth, one, anomaly_score(one, quiet=quiet)) for series, truth, one in each
    ]


def rows_of(
    corpus: Corpus, method: str, said: Sequence[Said], healthy: Sequence[Said], *, quiet: int
) -> list[Row]:
    """The line of the whole set, then one for each file; `said` of the corpus's series, `healthy`
    of its fault-free ones, which only false alarms are counted of."""
    files = judged(corpus, said, quiet=quiet)
    together, each = MEASURES[corpus.benchmark](files)
    healthy_files = [
        Judged(series, Truth(np.zeros(len(series.x), bool), (), 0), one, one.score)
        for series, one in zip(corpus.healthy, healthy, strict=True)
    ]
    every = [*files, *healthy_files]
    false = [_false_alarms(one) for one in every]
    asked_per_s = said[0].asked_per_s
    rows = [Row(method=method, file="", figures=together | _budget(false, asked_per_s))]
    found = [*each, *({} for _ in healthy_files)]
    for one, figures, alarms in zip(every, found, false, strict=True):
        figures = figures | _budget([alarms], asked_per_s)
        rows.append(Row(method=method, file=one.series.name, figures=figures))
    return rows


def _false_alarms(one: Judged) -> tuple[int, float]:
    """Alarms that went on in healthy stretches, and the seconds of these: rows that were not learnt
    from, neither labelled nor in an aftermath."""
    series, said = one.series, one.said
    learnt = max(0 if len(series.before) else series.first_rows, said.silent_rows)
    is_healthy = np.arange(len(series.x)) >= max(one.truth.scored_from, learnt)
    for start, end in one.truth.windows:
        is_healthy[start : end + AFTERMATH] = False
    first = int(np.argmax(is_healthy))  # an alarm that is on already there counts as well
    went_on = onsets(said.is_on & (np.arange(len(is_healthy)) >= first)) & is_healthy
    return int(went_on.sum()), float(is_healthy.sum()) * series.period_s


def _budget(found: Sequence[tuple[int, float]], asked_per_s: float) -> Figures:
    alarms, healthy_s = sum(one[0] for one in found), sum(one[1] for one in found)
    asked = asked_per_s * healthy_s if healthy_s else 0.0
    return {
        "false_alarms": alarms,
        "healthy_hours": healthy_s / 3600,
        "asked_alarms": asked if np.isfinite(asked) else None,
        "asked_times": share(alarms, asked) if np.isfinite(asked) else None,
    }


def _nab(files: Sequence[Judged]) -> tuple[Figures, list[Figures]]:
    scored = [ScoredFile(one.series.name, one.score, one.truth.windows) for one in files]
    swept = nab_scores(scored)
    alerts = [
        ScoredFile(one.series.name, onsets(one.said.is_on).astype(np.float64), one.truth.windows)
        for one in files
    ]
    at_own = score_at(alerts, STANDARD, 1.0)
    best = swept[0]
    together: Figures = {
        **{name: one.score for name, one in zip(NAB_PROFILES, swept, strict=True)},
        "own_threshold": at_own.score,
        "windows": sum(file.windows for file in best.files),
        "found": sum(file.found for file in best.files),
        "false_rows": sum(file.false for file in best.files),
        "threshold": best.threshold if np.isfinite(best.threshold) else None,
    }
    return together, [
        {
            **{
                name: _of_file(one, profile, place)
                for (name, profile), one in zip(NAB_PROFILES.items(), swept, strict=True)
            },
            "own_threshold": _of_file(at_own, STANDARD, place),
            "windows": file.windows,
            "found": file.found,
            "false_rows": file.false,
            "threshold": None,
        }
        for place, file in enumerate(best.files)
    ]


def _of_file(score: NabScore, profile: Profile, place: int) -> float | None:
    """A file alone, at the threshold of the whole set."""
    file: FilePoints = score.files[place]
    return profile.normalise(file.points, windows=file.windows)


def _skab(files: Sequence[Judged]) -> tuple[Figures, list[Figures]]:
    return _skab_of(files), [_skab_of([one]) for one in files]


def _skab_of(files: Sequence[Judged]) -> Figures:
    cut = [_scored_part(one) for one in files]
    quadrants = point_wise(cut)
    score = np.concatenate([one.score[one.is_scored] for one in files])
    faulty = np.concatenate([one.truth.is_anomalous[one.is_scored] for one in files])
    ranking = rank(score, faulty)
    changes: Sequence[ChangeScore] = change_scores(cut)
    return {
        "f1": quadrants.f1,
        "far": quadrants.false_alarm_rate,
        "mar": quadrants.missed_alarm_rate,
        "auc_roc": None if ranking is None else ranking.auc_roc,
        "best_f1": best_f1_within(score, faulty, FAR_LIMIT),
        **{
            name: change.score
            for name, change in zip(
                ("change_standard", "change_low_fp", "change_low_fn"), changes, strict=True
            )
        },
        "change_delay_s": changes[0].mean_delay_s,
    }


def _scored_part(one: Judged) -> JudgedFile:
    series, truth = one.series, one.truth
    assert series.time_s is not None  # SKAB's layout has times and change points
    assert truth.is_changepoint is not None
    return JudgedFile(
        series.name,
        series.time_s[one.is_scored],
        one.said.is_on[one.is_scored],
        truth.is_anomalous[one.is_scored],
        truth.is_changepoint[one.is_scored],
    )


def best_f1_within(score: Floats, faulty: Bools, most: float) -> float | None:
    """The highest F1 of any threshold on scores (T,) with a false-alarm rate of at most `most`. It
    looks at the labels: a limit, not a result."""
    if faulty.all() or not faulty.any():
        return None
    order = np.argsort(-score, kind="stable")
    hits, false = np.cumsum(faulty[order]), np.cumsum(~faulty[order])
    is_whole = np.append(np.diff(score[order]) != 0, True)  # rows of one score go together
    f1 = 2 * hits / (hits + false + faulty.sum())
    may = is_whole & (false <= most * (~faulty).sum())
    return float(f1[may].max()) if may.any() else 0.0


def _smd(files: Sequence[Judged]) -> tuple[Figures, list[Figures]]:
    each = [_ranked(one) | _named(one) for one in files]
    return {name: _mean([one[name] for one in each]) for name in each[0]}, each


def _gecco(files: Sequence[Judged]) -> tuple[Figures, list[Figures]]:
    each = [_ranked(one) for one in files]
    return {name: _mean([one[name] for one in each]) for name in each[0]}, each


def _ranked(one: Judged) -> Figures:
    """Areas under the scores, and the alarms row by row, of the rows that are scored."""
    rows = one.is_scored
    score, faulty = one.score[rows], one.truth.is_anomalous[rows]
    ranking = rank(score, faulty)
    quadrants: Quadrants = count(one.said.is_on[rows], faulty)
    return {
        "vus_pr": vus_pr(score, faulty, window=soft_width(one.series.x[:, 0])),
        "auc_pr": None if ranking is None else ranking.auc_pr,
        "f1": quadrants.f1,
        "far": quadrants.false_alarm_rate,
        "mar": quadrants.missed_alarm_rate,
    }


def _named(one: Judged) -> Figures:
    """How many of the channels behind each labelled stretch are named: of n true ones the n, or
    1.5 n, with the largest parts in the scores of its rows (HitRate@P%, Su et al., KDD 2019, of
    whole stretches as in Li et al., KDD 2021)."""
    parts, blamed = one.said.parts, one.truth.blamed
    if parts is None or not blamed:
        return {"hits_100": None, "hits_150": None}
    rates: dict[str, list[float]] = {"hits_100": [], "hits_150": []}
    for (start, end), channels in blamed:
        order = np.argsort(-np.nansum(parts[start:end], axis=0), kind="stable")
        for name, times in (("hits_100", 1.0), ("hits_150", LENIENT)):
            named = set(order[: int(times * len(channels))].tolist())
            rates[name].append(len(named & set(channels)) / len(channels))
    return {name: float(np.mean(found)) for name, found in rates.items()}


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


NAB_PROFILES: Mapping[str, Profile] = MappingProxyType(
    {"standard": STANDARD, "low_fp": LOW_FP, "low_fn": LOW_FN}
)
MEASURES: Mapping[str, Callable[[Sequence[Judged]], tuple[Figures, list[Figures]]]] = (
    MappingProxyType({"nab": _nab, "skab": _skab, "smd": _smd, "gecco": _gecco})
)
"""By benchmark: of all files, and of each."""
