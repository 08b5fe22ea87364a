"""Every way to store the weights, built and measured on this machine, and which one to take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from edgernn.errors import EdgernnError
from edgernn_export.artefact import Candidate, Source, build_candidates
from edgernn_export.budget import KEYS, Budget
from edgernn_export.compare import Floats
from edgernn_export.latency import Latency, measure_latency
from edgernn_export.quality import Exam, Quality, examine

ALIKE = 1.05
"""Times within this factor are the same: stored weights differ by less from one run to the next."""
QUALITIES = ("proof", "flips", "auc_pr", "difference")
"""Lines of a budget that are about what is lost, not what it costs."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the table, and its artefact."""

    name: str
    """The mode, and "+qat" behind it where training went on for it."""
    candidate: Candidate
    quality: Quality
    latency: Latency
    misses: tuple[str, ...]
    """Fields of the budget that it exceeds, and "proof" where it does not pass."""

    @property
    def size_bytes(self) -> int:
        return len(self.candidate.artefact)


class Examined(NamedTuple):
    """A candidate whose times are not measured yet."""

    candidate: Candidate
    quality: Quality


def build_and_examine(source: Source, mode: str, exam: Exam, budget: Budget) -> Examined:
    """Built, proven against the source's own model, and judged beside the one of the exam: the
    smallest of the mode that loses no more than the budget allows, else its finest."""
    for candidate in build_candidates(source, mode):
        by_one = mode == "int8-dynamic"
        quality = examine(exam, candidate.artefact, sample_by_sample=by_one)
        if not loses_too_much(candidate, quality, budget):
            break
    return Examined(candidate, quality)


def measure_all(examined: Mapping[str, Examined], x: Floats, budget: Budget) -> list[Measured]:
    """The rows of the table, by their names; times over samples x (T, C)."""
    artefacts = {name: one.candidate.artefact for name, one in examined.items()}
    latencies = measure_latency(artefacts, x)
    return [
        Measured(
            name, *one, latencies[name], find_misses(*one, latency=latencies[name], budget=budget)
        )
        for name, one in examined.items()
    ]


def find_misses(
    candidate: Candidate, quality: Quality, *, latency: Latency | None, budget: Budget
) -> tuple[str, ...]:
    """Which lines of the budget are exceeded; what was not or could not be counted exceeds none."""
    flips = None if quality.gained is None else quality.gained + (quality.lost or 0)
    figures = {
        "flips": flips,
        "auc_pr": quality.auc_pr_loss,
        "difference": quality.difference,
        "bytes": len(candidate.artefact),
        "us": None if latency is None else latency.us_1,
    }
    exceeded = [
        name
        for name, value in figures.items()
        if value is not None and not value <= getattr(budget, name)
    ]
    return ("proof",) * bool(candidate.proof.failures) + tuple(exceeded)


def choose(rows: Sequence[Measured], goal: str, budget: Budget) -> Measured:
    """The best by `goal` of those inside the budget. Raises EdgernnError if there is none."""
    inside = [row for row in rows if not row.misses]
    if not inside:
        said = "; ".join(f"{row.name!r} misses {missed(row)}" for row in rows)
        raise EdgernnError(
            f"refused: no candidate is inside the budget ({describe(budget)}); no file written: "
            f"{said}"
        )
    if goal == "size":
        return min(inside, key=lambda row: row.size_bytes)
    if goal == "balanced":
        return min(inside, key=lambda row: row.size_bytes * row.latency.us_1)
    fastest = min(row.latency.us_1 for row in inside)
    alike = [row for row in inside if row.latency.us_1 <= ALIKE * fastest]
    return min(alike, key=lambda row: row.size_bytes)


def missed(row: Measured) -> str:
    """The lines of the budget that a row exceeds, as they are written."""
    written = {field: key for key, field in KEYS.items()}
    return ", ".join(written.get(name, name) for name in row.misses)


def describe(budget: Budget) -> str:
    """As it would be written."""
    values = msgspec.structs.asdict(budget)
    return ",".join(
        f"{key}={values[field]:g}" for key, field in KEYS.items() if values[field] != float("inf")
    )


def loses_too_much(candidate: Candidate, quality: Quality, budget: Budget) -> bool:
    """Whether it misses a line of the budget that finer weights, or training on, can help with."""
    misses = find_misses(candidate, quality, latency=None, budget=budget)
    return any(name in QUALITIES for name in misses)
