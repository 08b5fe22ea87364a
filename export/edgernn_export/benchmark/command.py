"""The command benchmark: any folder laid out as a public set, detectors beside plain methods."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from tqdm import tqdm

import edgernn.benchmark
from edgernn.benchmark.baselines import BASELINES
from edgernn.benchmark.columns import as_csv, table
from edgernn.benchmark.corpus import PROTOCOLS, read_corpus
from edgernn.benchmark.figures import Row, judged, rows_of
from edgernn.benchmark.method import Method, Said
from edgernn.benchmark.page import Page, write_page
from edgernn.benchmark.plain import Plain
from edgernn.benchmark.score_files import write_scores
from edgernn.benchmark.series import Corpus
from edgernn.calibration import parse_budget
from edgernn.errors import EdgernnError
from edgernn.options import PATH
from edgernn.settings import check_is_writable, make_folder, write_atomically
from edgernn_device.shipped import GENERAL, GENERAL_FILE
from edgernn_export.benchmark.detectors import Ready, Trained, open_for, read_training_file
from edgernn_export.benchmark.streamed import fitted
from edgernn_export.benchmark.work import answers

ALL = "all"
HERE = Path(edgernn.benchmark.__file__).parent
TRAINED = {"edgernn": HERE / "detector.toml", "edgernn-levels": HERE / "levels.toml"}
"""Training files that come along, by the names of their detectors."""
QUIET = {"nab": 288}
"""Rows in which a score must be beaten to count again; NAB counts every row of an alarm."""


@click.command()
@click.argument("name", metavar="|".join(PROTOCOLS))
@click.argument("folder", metavar="DIR", type=PATH)
@click.option(
    "--detector",
    "detectors",
    multiple=True,
    metavar="FILE.toml|NAME",
    help=f"A training file, {' or '.join(TRAINED)} (those that come along), {GENERAL} (which is "
    f"not trained), a plain method ({', '.join(BASELINES)}), or {ALL} of these, which is the "
    "default. May be "
    "given again; the first one is drawn.",
)
@click.option("--artefact", type=PATH, help="A ready .onnx file for every series, drawn first.")
@click.option("--protocol", default="", help="smd: official, tsb-ad; gecco: tsb-ad, official.")
@click.option("--false-alarms", metavar="BUDGET", help="Another budget than 1/week.")
@click.option(
    "--quiet",
    type=int,
    help="Rows in which a score must be beaten to count again. Default: else 0; nab 288, and for "
    "detectors their own quiet.",
)
@click.option("--table", "table_file", type=PATH, help="A .csv file for every figure of each file.")
@click.option("--report", type=PATH, help="An .html file with a picture of each file.")
@click.option("--scores", type=PATH, help="Folder for a CSV of scores and alerts of each file.")
@click.option("--keep", type=PATH, help="Folder for the artefacts that are trained.")
@click.option("--workers", type=int, default=2, show_default=True, help="Processes.")
def benchmark(
    name: str,
    folder: Path,
    detectors: tuple[str, ...],
    artefact: Path | None,
    protocol: str,
    false_alarms: str | None,
    quiet: int | None,
    table_file: Path | None,
    report: Path | None,
    scores: Path | None,
    keep: Path | None,
    workers: int,
) -> None:
    """Measure detectors on DIR, a folder laid out as the public set nab, skab, smd or gecco is.

    For each file a detector learns from what the set's protocol gives, is exported with integer
    weights, and streams through the device's engine. Beside it stand plain methods with the same
    decision stage. Labels are for the figures alone.
    """
    if false_alarms is not None:
        parse_budget(false_alarms, where="--false-alarms")
    if workers < 1:
        raise EdgernnError(f"--workers: expected 1 or more, got {workers}")
    is_own_quiet, quiet = quiet is None, QUIET.get(name, 0) if quiet is None else quiet
    if quiet < 0:
        raise EdgernnError(f"--quiet: expected 0 or more rows, got {quiet}")
    for path, suffix in ((table_file, ".csv"), (report, ".html")):
        _check_file(path, suffix)
    corpus = read_corpus(name, folder, protocol=protocol)
    methods = _methods(detectors, artefact, false_alarms, keep)
    _check_channels(artefact, corpus)
    for made in (scores, keep):
        if made is not None:
            check_is_writable(make_folder(made))
    said = _ask_all(methods, corpus, workers=min(workers, os.cpu_count() or 1))
    if not is_own_quiet:
        said = [[replace(one, told=None) for one in of_all] for of_all in said]
    known = len(corpus.series)
    rows: list[Row] = []
    for method, of_all in zip(methods, said, strict=True):
        rows += rows_of(corpus, method.name, of_all[:known], of_all[known:], quiet=quiet)
    click.echo("\n".join(table(name, rows)))
    for method, of_all in zip(methods, said, strict=True):
        for series, one in zip((*corpus.series, *corpus.healthy), of_all, strict=True):
            if one.note:
                click.echo(f"{method.name}, {series.name}: {one.note}", err=True)
    if table_file is not None:
        write_atomically(table_file, as_csv(name, corpus.protocol, rows).encode())
    if scores is not None:
        _write_all(scores, corpus, methods, said, quiet=quiet)
    if report is not None:
        drawn = judged(corpus, said[0][:known], quiet=quiet)
        alarms = {
            method.name: [one.is_on for one in of_all[:known]]
            for method, of_all in zip(methods, said, strict=True)
        }
        write_page(report, Page(corpus, folder.resolve().name, rows, drawn, alarms, quiet))


def _methods(
    detectors: Sequence[str], artefact: Path | None, budget: str | None, keep: Path | None
) -> list[Method]:
    """In the order asked for, an artefact first; all that come along if nothing is asked for."""
    methods: list[Method] = [] if artefact is None else [Ready(artefact.stem, artefact, budget)]
    for asked in detectors or (() if methods else (ALL,)):
        for word in (*TRAINED, GENERAL, *BASELINES) if asked == ALL else (asked,):
            methods.append(_method(word, budget, keep))
    names = [method.name for method in methods]
    if twice := sorted({one for one in names if names.count(one) > 1}):
        raise EdgernnError(f"--detector: {twice[0]} twice; each needs a name of its own")
    return methods


def _method(word: str, budget: str | None, keep: Path | None) -> Method:
    if word in BASELINES:
        return Plain(word, budget)
    if word == GENERAL:
        return Ready(GENERAL, GENERAL_FILE, budget)
    path = TRAINED.get(word, Path(word))
    if path.suffix != ".toml":
        raise EdgernnError(
            f"--detector: expected a .toml file, {ALL}, {', '.join(TRAINED)}, {GENERAL} or one of "
            f'{", ".join(BASELINES)}; got "{word}"'
        )
    name = word if word in TRAINED else path.stem
    return Trained(name, read_training_file(path), budget, keep=keep and keep / name)


def _check_channels(artefact: Path | None, corpus: Corpus) -> None:
    """Said before anything is trained."""
    if artefact is not None:
        for series in (*corpus.series, *corpus.healthy):
            fitted(open_for(artefact, series).card, series)


def _check_file(path: Path | None, suffix: str) -> None:
    if path is None:
        return
    if path.suffix != suffix or path.is_dir():
        raise EdgernnError(f"{path}: expected the name of a {suffix} file")
    check_is_writable(make_folder(path.parent))


def _ask_all(methods: Sequence[Method], corpus: Corpus, *, workers: int) -> list[list[Said]]:
    """Of each method what it says of every series, healthy ones at the end."""
    series = (*corpus.series, *corpus.healthy)
    questions = [(method, one) for method in methods for one in series]
    with tqdm(total=len(questions), unit="file", disable=None) as bar:
        said = answers(questions, workers=workers, on_answer=bar.update)
    return [said[i : i + len(series)] for i in range(0, len(said), len(series))]


def _write_all(
    folder: Path,
    corpus: Corpus,
    methods: Sequence[Method],
    said: Sequence[Sequence[Said]],
    *,
    quiet: int,
) -> None:
    """The first method's files in the folder itself, those of others in folders of their names."""
    for place, (method, of_all) in enumerate(zip(methods, said, strict=True)):
        below = folder / method.name if place else folder
        for series, one in zip((*corpus.series, *corpus.healthy), of_all, strict=True):
            write_scores(below, series, one, quiet=quiet)
