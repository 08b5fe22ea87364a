"""`edgernn benchmark` on small folders of each layout: files, figures, refusals, no look-ahead."""

import csv
import html
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from corpora import WRITERS, write_nab, write_skab
from sklearn.metrics import average_precision_score

from edgernn.alarm import Limits
from edgernn.benchmark.baselines import BASELINES, score_series
from edgernn.benchmark.columns import COLUMNS
from edgernn.benchmark.corpus import read_corpus
from edgernn.benchmark.method import Method, ask
from edgernn.benchmark.nab import ScoredFile, nab_scores
from edgernn.benchmark.page import TITLES
from edgernn.benchmark.plain import Plain
from edgernn.benchmark.published import anomaly_score
from edgernn.config import Config
from edgernn.errors import EdgernnError
from edgernn.nets.general import GeneralConfig
from edgernn.run import Run
from edgernn_device.alarms import Alarms
from edgernn_device.engine import Engine
from edgernn_device.monitor import Monitor
from edgernn_device.payload import RawSample
from edgernn_device.shipped import GENERAL, GENERAL_FILE
from edgernn_device.stream import StreamRule
from edgernn_export.artefact import RefusedError
from edgernn_export.benchmark import detectors
from edgernn_export.benchmark.cli import benchmark
from edgernn_export.benchmark.command import TRAINED
from edgernn_export.benchmark.detectors import Ready, read_training_file
from edgernn_export.benchmark.streamed import fitted, news

TRAINING_FILE = """
[network]
hidden = 4
[training]
epochs = 2
calibration = 0.55
validation = 0.1
chunk = 16
[score]
window = 10
"""
PUMP_CHANNELS = 6


def run(*words: object) -> Result:
    """In this process."""
    said = ["--workers", "1", *map(str, words)]
    return CliRunner().invoke(benchmark, said, catch_exceptions=False)


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def printed(output: str) -> dict[str, list[str]]:
    """Method → its cells in the table that was printed."""
    lines = [line.strip("|").split("|") for line in output.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


@pytest.fixture(scope="module", params=WRITERS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Found":
    """What the plain methods leave behind, of each layout."""
    folder = tmp_path_factory.mktemp(request.param)
    corpus = WRITERS[request.param](folder / "in")
    chosen = ("z-score", "random", "persistence")
    words: list[object] = [word for name in chosen for word in ("--detector", name)]
    words += ["--table", folder / "t.csv", "--report", folder / "r.html", "--scores", folder / "s"]
    return Found(request.param, folder, run(request.param, corpus, *words).output)


class Found:
    def __init__(self, name: str, folder: Path, output: str) -> None:
        self.name, self.folder, self.output = name, folder, output
        self.rows = read(folder / "t.csv")
        self.page = (folder / "r.html").read_text()
        self.corpus = read_corpus(name, folder / "in")


def test_every_file_has_its_scores_at_its_place_in_its_order(found: Found) -> None:
    for series in (*found.corpus.series, *found.corpus.healthy):
        for below in ("", "random", "persistence"):
            rows = read(found.folder / "s" / below / series.name)
            assert len(rows) == len(series.x)
            scores = [float(row["anomaly_score"]) for row in rows]
            assert 0 <= min(scores) <= max(scores) <= 1
            assert {row["alert"] for row in rows} <= {"0", "1"}
            if series.time_s is None:
                assert list(rows[0]) == ["anomaly_score", "alert"]
            else:
                assert rows[0]["timestamp"] == "2026-01-01 00:00:00"


def test_the_jump_is_found_at_the_own_threshold_and_outranks_chance(found: Found) -> None:
    z_score, chance = (
        next(row for row in found.rows if (row["method"], row["file"]) == (name, ""))
        for name in ("z-score", "random")
    )
    figure = {"nab": "standard", "skab": "auc_roc"}.get(found.name, "vus_pr")
    assert float(z_score[figure]) > float(chance[figure]) + 0.2
    for series, truth in zip(found.corpus.series, found.corpus.truths, strict=True):
        alerts = [row["alert"] == "1" for row in read(found.folder / "s" / series.name)]
        for start, end in truth.windows:
            assert any(alerts[start:end])


def test_what_is_printed_stands_in_the_csv(found: Found) -> None:
    of_all = {row["method"]: row for row in found.rows if not row["file"]}
    lines = printed(found.output)
    for method, row in of_all.items():
        for cell, column in zip(lines[method], COLUMNS[found.name], strict=True):
            value = row[column.name]
            assert cell == (f"{float(value):,.{column.digits}f}" if value else "–")


def test_the_page_shows_the_figures_of_the_csv_and_a_picture_of_each_file(found: Found) -> None:
    cells = [
        [
            html.unescape(re.sub("<.*?>", "", cell))
            for cell in re.findall(r"<t[hd].*?</t[hd]>", line)
        ]
        for line in re.findall(r"<tr.*?</tr>", found.page)
    ]
    shown = [tuple(line) for line in cells if line[0] != "Method"]
    wanted = []
    for row in sorted(found.rows, key=lambda row: row["file"]):
        values = [row[column.name] for column in COLUMNS[found.name]]
        digits = [column.digits for column in COLUMNS[found.name]]
        texts = [f"{float(v):,.{d}f}" if v else "–" for v, d in zip(values, digits, strict=True)]
        wanted.append((row["method"], *texts))
    assert sorted(shown) == sorted(wanted)
    assert found.page.count("<svg") == len(found.corpus.series)
    assert f"<h1>{TITLES[found.corpus.benchmark]}, protocol {found.corpus.protocol}" in found.page
    assert not re.search(r'(?:src|href)="(?!#|data:)', found.page)


def test_nabs_figures_follow_from_the_score_files(tmp_path: Path) -> None:
    folder = write_nab(tmp_path / "in")
    places: tuple[object, ...] = ("--scores", tmp_path / "s", "--table", tmp_path / "t.csv")
    run("nab", folder, "--detector", "z-score", *places)
    corpus = read_corpus("nab", folder)
    files = [
        ScoredFile(
            series.name,
            np.array([float(row["anomaly_score"]) for row in read(tmp_path / "s" / series.name)]),
            truth.windows,
        )
        for series, truth in zip(corpus.series, corpus.truths, strict=True)
    ]
    (row,) = (row for row in read(tmp_path / "t.csv") if not row["file"])
    names = ("standard", "low_fp", "low_fn")
    assert [float(row[name]) for name in names] == [one.score for one in nab_scores(files)]


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"always-on"}))
def test_a_plain_method_keeps_the_order_of_its_own_scores(name: str, tmp_path: Path) -> None:
    corpus = read_corpus("smd", WRITERS["smd"](tmp_path))
    for series, truth in zip(corpus.series, corpus.truths, strict=True):
        direct = score_series(BASELINES[name](0), series).score
        known = np.isfinite(direct)
        said = anomaly_score(ask(Plain(name), series))
        assert average_precision_score(truth.is_anomalous[known], said[known]) == pytest.approx(
            average_precision_score(truth.is_anomalous[known], direct[known]), abs=1e-6
        )


def methods(artefact: Path) -> list[Method]:
    ready = Ready("ready", artefact), Ready(GENERAL, GENERAL_FILE)
    return [*ready, *(Plain(name) for name in BASELINES)]


@pytest.mark.parametrize("quiet", [0, 20])
def test_a_changed_later_row_changes_no_earlier_score(
    quiet: int, tmp_path: Path, artefact: Path
) -> None:
    folder = write_skab(tmp_path, channels=PUMP_CHANNELS)
    changed = folder / "valve1" / "2.csv"
    before = read_corpus("skab", folder)
    lines = changed.read_text().splitlines()
    at = 551
    lines[at + 1] = ";".join(["2026-01-01 00:09:11", *["1e6"] * PUMP_CHANNELS, "1.0", "0.0"])
    for place in range(at + 2, len(lines)):
        cells = lines[place].split(";")
        lines[place] = ";".join([cells[0], *["-7.5"] * PUMP_CHANNELS, *cells[-2:]])
    changed.write_text("\n".join(lines) + "\n")
    after = read_corpus("skab", folder)
    for method in methods(artefact):
        one, other = ask(method, before.series[0]), ask(method, after.series[0])
        scores = [anomaly_score(said, quiet=quiet) for said in (one, other)]
        np.testing.assert_array_equal(scores[0][:at], scores[1][:at])
        np.testing.assert_array_equal(one.is_on[:at], other.is_on[:at])
        is_quieted = quiet > 0 and one.told is not None  # what comes after may be no news
        if method.name not in ("always-on", "random") and not is_quieted:
            assert scores[0][at:].tolist() != scores[1][at:].tolist()


def test_a_series_is_scored_as_the_agent_scores_it_sample_by_sample(
    tmp_path: Path, artefact: Path
) -> None:
    path = write_skab(tmp_path, channels=PUMP_CHANNELS) / "valve1" / "2.csv"
    lines = path.read_text().splitlines()
    for gone in range(560, 550, -1):  # ten samples are bridged
        del lines[gone]
    late = [line.replace("2026-01-01 00:11", "2026-01-01 00:31") for line in lines[631:]]
    path.write_text("\n".join([*lines[:631], *late]) + "\n")  # after a long gap all begins anew
    series = read_corpus("skab", tmp_path).series[0]
    said = ask(Ready("ready", artefact), series)

    engine = Engine.load(artefact)
    card = fitted(engine.card, series)
    task = Alarms(engine, Limits.from_rule(card.alarm, card), node="")
    rule = StreamRule(card.period_s, card.warm_up, card.max_gap_s, card.delay)
    monitor = Monitor(engine, task, rule=rule, max_streams=1)
    assert series.time_s is not None
    for row, (time_s, x) in enumerate(zip(series.time_s.tolist(), series.x, strict=True)):
        values = dict(zip(card.channel_names, x.tolist(), strict=True))
        monitor.take([("s", RawSample(time_s, None, values))])
        state = monitor.state_of("s")
        score = np.nan if state.score is None else state.score
        assert said.score[row] == pytest.approx(score, abs=2e-3, nan_ok=True)
        assert said.is_on[row] == (state.state in ("on", "recovering"))
    assert monitor.counts["bridged"] == 10
    assert monitor.counts["gap"] == 1


def test_what_is_news_by_hand() -> None:
    score = np.array([2.0, 2.9, 3.1, np.nan, 4.0, 3.0, 2.8, 2.0, 1.0])
    found = news([*map(float, range(9))], score, (0, 8), quiet_s=3.0)
    # above 2, 3 and, 3 s after 3.1, that much; then it fades: 3.1·exp(−1/15) = 2.9
    assert found.tolist() == [2.0, 0, 3.1, 0, 0, 0, 0, 0, 1.0]
    later = news([0.0, 4.0, 8.0], np.array([3.1, 2.8, 2.8]), (0,), quiet_s=3.0)
    assert later.tolist() == [3.1, 0, 2.8]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training file on a NAB-like folder."""
    folder = tmp_path_factory.mktemp("trained")
    write_nab(folder / "in")
    (folder / "small.toml").write_text(TRAINING_FILE)
    detectors = ("--detector", folder / "small.toml", "--detector", "always-on")
    places = ("--scores", folder / "s", "--keep", folder / "k", "--table", folder / "t.csv")
    done = run("nab", folder / "in", *detectors, *places)
    assert list(printed(done.output))[-2:] == ["small", "always-on"]
    return folder


def test_a_detector_is_trained_exported_and_streamed_for_each_file(trained: Path) -> None:
    corpus = read_corpus("nab", trained / "in")
    for series, truth in zip(corpus.series, corpus.truths, strict=True):
        engine = Engine.load(trained / "k" / "small" / Path(series.name).with_suffix(".onnx"))
        assert engine.card.quantization == "int8"
        rows = read(trained / "s" / series.name)
        learnt = 400  # 0.55 of them are the 200 that calibration needs, and 20 to spare
        assert {row["anomaly_score"] for row in rows[:learnt]} == {"0.0"}
        for start, end in truth.windows:
            assert any(row["alert"] == "1" for row in rows[start:end])


def test_a_detector_that_no_export_is_proven_of_says_nothing_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: Run, *, quantization: str) -> None:
        raise RefusedError(f"refused: {quantization}")

    monkeypatch.setattr(detectors, "build_artefact", refuse)
    (tmp_path / "small.toml").write_text(TRAINING_FILE)
    method = detectors.Trained("small", detectors.read_training_file(tmp_path / "small.toml"))
    said = ask(method, read_corpus("nab", write_nab(tmp_path)).series[0])
    assert said.note == detectors.NO_EXPORT
    assert not said.is_on.any()
    assert not anomaly_score(said).any()


def test_a_series_that_nothing_can_be_begun_by_has_no_say_and_the_others_have(
    tmp_path: Path,
) -> None:
    method = detectors.Trained("begun", Config(recording=(), general=GeneralConfig()))
    one, other, *_ = read_corpus("nab", write_nab(tmp_path)).series
    x = one.x.copy()
    x[: method.fewest_rows] = 7
    said = ask(method, replace(one, x=x))
    assert said.note.startswith("says nothing: no channel of the recording moves")
    assert not said.is_on.any()
    assert not np.isfinite(said.score).any()
    assert np.isfinite(ask(method, other).score).any()


def test_kept_artefacts_give_the_scores_that_were_written(trained: Path) -> None:
    series = read_corpus("nab", trained / "in").series[0]
    kept = trained / "k" / "small" / Path(series.name).with_suffix(".onnx")
    again = anomaly_score(ask(Ready("kept", kept), series), quiet=288)
    written = [float(row["anomaly_score"]) for row in read(trained / "s" / series.name)]
    behind = 400 + 288  # what was scored while the detector was learnt is silent there
    assert again[behind:].tolist() == written[behind:]


def test_always_on_alarms_once_in_every_file(trained: Path) -> None:
    rows = [row for row in read(trained / "t.csv") if row["method"] == "always-on"]
    assert [row["false_alarms"] for row in rows if row["file"]] == ["1"] * 2


def test_a_ready_artefact_is_taken_for_every_file(tmp_path: Path, artefact: Path) -> None:
    folder = write_skab(tmp_path / "in", channels=PUMP_CHANNELS)
    said = run("skab", folder, "--artefact", artefact, "--detector", "z-score")
    assert list(printed(said.output))[-2:] == [artefact.stem, "z-score"]


def test_the_artefact_that_needs_no_training_is_told_of_each_files_channels(
    tmp_path: Path,
) -> None:
    for write, name in ((write_nab, "nab"), (write_skab, "skab")):
        folder = write(tmp_path / name)
        said = run(name, folder, "--detector", "general", "--detector", "always-on")
        assert list(printed(said.output))[-2:] == ["general", "always-on"]
    with pytest.raises(EdgernnError, match="expected 1–64 names, got 65"):
        run("skab", write_skab(tmp_path / "wide", channels=65), "--artefact", GENERAL_FILE)


def test_a_smaller_budget_gives_a_higher_threshold(tmp_path: Path) -> None:
    series = read_corpus("skab", write_skab(tmp_path)).series[0]
    seldom, often = (ask(Plain("z-score", budget), series) for budget in ("1/year", "10/hour"))
    assert seldom.threshold > often.threshold


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nba", "in"), 'benchmark: expected nab or skab or smd or gecco, got "nba"'),
        (("nab", "nowhere"), "nowhere: no such folder, expected a folder laid out as nab is"),
        (("nab", "in", "--protocol", "mine"), 'protocol of nab: expected official, got "mine"'),
        (("nab", "in", "--detector", "lstm"), "one of always-on, random, z-score"),
        (("nab", "in", "--detector", "no.toml"), "no.toml: no such file"),
        (("nab", "in", "--detector", "bad.toml"), "bad.toml: unknown key `netwrok`"),
        (("nab", "in", "--detector", "other.toml"), 'expected "anomaly", got "classify"'),
        (("nab", "in", "--detector", "all", "--detector", "pca"), "--detector: pca twice"),
        (("nab", "in", "--artefact", "no.onnx"), "no.onnx: no such file"),
        (("nab", "in", "--false-alarms", "few"), "--false-alarms: expected a number above 0"),
        (("nab", "in", "--workers", "0"), "--workers: expected 1 or more, got 0"),
        (("nab", "in", "--quiet", "-1"), "--quiet: expected 0 or more rows, got -1"),
        (("nab", "in", "--table", "rows.txt"), "rows.txt: expected the name of a .csv file"),
        (("nab", "in", "--report", "page"), "page: expected the name of a .html file"),
        (("nab", "in", "--scores", "bad.toml"), "bad.toml: cannot be made a folder"),
        (("nab", "short", "--detector", "z-score"), "one.csv: z-score needs 220 rows"),
    ],
)
def test_bad_input_gets_one_sentence(
    words: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nab(tmp_path / "in")
    write_nab(tmp_path / "short")
    (tmp_path / "short" / "labels" / "combined_windows.json").write_text('{"one.csv": []}')
    for path in (tmp_path / "short" / "data").rglob("*.csv"):
        path.unlink()
    rows = (tmp_path / "in" / "data" / "fans" / "quiet.csv").read_text().splitlines()[:200]
    (tmp_path / "short" / "data" / "one.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "bad.toml").write_text("[netwrok]\nhidden = 4\n")
    (tmp_path / "other.toml").write_text('task = "classify"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgernnError) as refused:
        run(*words)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_artefact_for_other_channels_is_refused_before_anything_is_scored(
    tmp_path: Path, artefact: Path
) -> None:
    folder = write_skab(tmp_path, channels=3)
    with pytest.raises(
        EdgernnError, match=rf"{artefact}, \S+\.csv: \S+ has 6 channels, the file 3"
    ):
        run("skab", folder, "--artefact", artefact)


def test_several_processes_say_what_one_says(tmp_path: Path) -> None:
    words = ("nab", str(write_nab(tmp_path)), "--detector", "z-score", "--detector", "random")
    command = [sys.executable, "-m", "edgernn", "benchmark", *words, "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == run(*words).output


def test_a_refusal_in_another_process_keeps_its_sentence(tmp_path: Path) -> None:
    folder = write_nab(tmp_path)
    path = folder / "data" / "fans" / "quiet.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:150]) + "\n")
    with pytest.raises(EdgernnError, match=r"fans/quiet.csv: z-score needs 220 rows"):
        run("nab", folder, "--detector", "z-score", "--workers", 2)


def test_nothing_behind_the_rows_to_learn_from_is_learnt(tmp_path: Path) -> None:
    series = read_corpus("nab", write_nab(tmp_path)).series[0]
    assert series.time_s is not None
    later = np.arange(len(series.x)) >= series.first_rows
    other = replace(
        series,
        x=np.where(later[:, None], np.float32(99), series.x),
        time_s=np.where(later, series.time_s + 1e6, series.time_s),
    )
    one, two = (detectors.learnt_recording(each).tracks[0] for each in (series, other))
    assert len(one.x) == series.first_rows
    np.testing.assert_array_equal(one.x, two.x)
    np.testing.assert_array_equal(one.time_s, two.time_s)


def test_the_training_files_that_come_along_differ_in_what_they_are_named_for() -> None:
    plain, levelled, begun = (read_training_file(path) for path in TRAINED.values())
    assert levelled.levels.of == ("reading", "residual")
    assert msgspec.structs.replace(levelled, levels=plain.levels) == plain
    assert begun.general == GeneralConfig()
