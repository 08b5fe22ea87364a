"""`edgernn evaluate` and the page that it leaves: numbers, pictures, and nothing from elsewhere."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from edgernn.envelope import envelope, pooled
from edgernn.evaluation import cli, page
from edgernn.evaluation.page import duration, number
from edgernn.recording import Recording, Track, write_recording
from edgernn.report import dates_of, plot_line, shade
from edgernn.run import EpochLoss, Run, save_run
from edgernn.simulate.pump import parse_fault, simulate_pump

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """What a reader, a screen reader or a browser would find."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.open: list[str] = []
        self.svgs = 0
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.open += [] if tag in VOID else [tag]
        self.svgs += tag == "svg"
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[key] for key in ("href", "src", "xlink:href") if key in found]
        self.pictures += [found["aria-label"]] if found.get("role") == "img" else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop() if tag not in VOID else None

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data.split()

    @property
    def words(self) -> str:
        return " ".join(self.text)


def evaluate(run_folder: Path, source: Path, folder: Path, *more: str) -> str:
    """What the command prints."""
    words = [str(run_folder), str(source), "-o", str(folder), *more]
    done = CliRunner().invoke(cli.evaluate, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def labelled(trained_run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Evaluated, with two folds: two hours of a pump with a leak and one frozen sensor."""
    folder = tmp_path_factory.mktemp("labelled")
    save_run(folder, trained_run, [EpochLoss(1, 1.5, 1.25, 0.01)])
    write_recording(folder / "healthy.csv", simulate_pump(hours=0.8, seed=1))
    faults = [parse_fault(text) for text in ("leak@20m+10m", "stuck:flow@80m")]
    recording = simulate_pump(hours=2, seed=3, faults=faults, stream="<pump> & co")
    write_recording(folder / "faulty.parquet", recording)
    return folder, evaluate(folder, folder / "faulty.parquet", folder, "--folds", "2")


@pytest.fixture(scope="module")
def unlabelled(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Three streams, and a page that draws two."""
    folder = tmp_path_factory.mktemp("unlabelled")
    one = simulate_pump(hours=0.2, seed=4)
    tracks = tuple(Track(f"pump-{i}", t.time_s, t.x, None) for i in range(3) for t in one.tracks)
    write_recording(folder / "x.csv", Recording(one.channels, one.units, tracks, 1.0, ()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "MOST_STREAMS", 2)
        return folder, evaluate(run_folder, folder / "x.csv", folder)


def test_the_numbers_are_in_a_file_by_stable_names(labelled: tuple[Path, str]) -> None:
    told = json.loads((labelled[0] / "metrics.json").read_bytes())
    assert list(told) == [
        "threshold",
        "budget_per_day",
        "faults_total",
        "faults_found",
        "on_already",
        "faults_unscored",
        "median_delay_s",
        "precision",
        "recall",
        "f1",
        "auc_pr",
        "auc_roc",
        "vus_pr",
        "best_f1",
        "best_f1_threshold",
        "rows",
        "scored_rows",
        "scored_hours",
        "healthy_hours",
        "alarms",
        "alarms_per_day",
        "false_alarms",
        "false_alarms_per_day",
        "false_alarm_rate",
        "missed_alarm_rate",
        "vus_window",
        "kinds",
        "faults",
    ]
    assert [kind["label"] for kind in told["kinds"]] == ["leak", "stuck"]
    assert told["budget_per_day"] == pytest.approx(1 / 7)
    assert told["rows"] - told["scored_rows"] == 60
    assert told["best_f1"] >= told["kinds"][0]["f1"] * 0.5 > 0


def test_the_terminal_says_what_looks_at_the_labels(labelled: tuple[Path, str]) -> None:
    assert "best possible, looks at the labels: F1" in labelled[1]
    assert re.search(r"leak +1 of 1 found, median delay \d", labelled[1])


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(labelled: tuple[Path, str]) -> None:
    path = labelled[0] / "report.html"
    found = Page(path)
    assert len(found.ids) == len(set(found.ids))
    assert [link for link in found.links if not link.startswith(("#", "data:image/png"))] == []
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    code = re.sub(r'xmlns(:xlink)?="[^"]*"', "", path.read_text(encoding="utf-8"))
    assert not re.search(r"https?:|<script|@import|url\((?!#)", code)
    assert path.stat().st_size < 900_000


def test_the_page_has_a_text_for_every_picture(labelled: tuple[Path, str]) -> None:
    found = Page(labelled[0] / "report.html")
    told = json.loads((labelled[0] / "metrics.json").read_bytes())
    assert len(found.pictures) == found.svgs == 2 + min(told["alarms"], 4)
    assert all(len(text) > 40 for text in found.pictures)
    assert "heat map of the part that each channel has" in found.pictures[-1]


def test_the_page_tells_numbers_kinds_and_names_as_they_are(labelled: tuple[Path, str]) -> None:
    words = Page(labelled[0] / "report.html").words
    told = json.loads((labelled[0] / "metrics.json").read_bytes())
    assert f"VUS-PR {told['vus_pr']:.3f}" in words
    assert f"Threshold {told['threshold']:.2f}" in words
    assert "A limit, not a result." in words
    assert "leak 1 of 1" in words
    assert f"On already {told['on_already']}" in words
    assert "<pump> & co" in words  # escaped in the file


def test_folds_stand_on_the_page_in_files_and_on_the_terminal(labelled: tuple[Path, str]) -> None:
    folder, said = labelled
    told = json.loads((folder / "folds.json").read_bytes())
    mean, std = told["mean"]["loss"], told["std"]["loss"]
    assert f"{mean:.4g} ± {std:.4g}" in said
    assert "2 folds, budget 0.143 false alarms a day" in said
    words = Page(folder / "report.html").words
    assert f"{mean:.4g} ± {std:.4g}" in words and "false alarms per day" in words
    assert (folder / "folds.csv").read_text().startswith("fold,held_out_hours,loss,")


def test_without_labels_the_page_says_what_is_not_available(unlabelled: tuple[Path, str]) -> None:
    folder, said = unlabelled
    found = Page(folder / "report.html")
    assert "no labels: precision, recall, F1, areas and delays are not available" in said
    assert "The recording has no labels" in found.words
    assert "F1 not available" in found.words and "VUS-PR not available" in found.words
    told = json.loads((folder / "metrics.json").read_bytes())
    assert (told["f1"], told["auc_pr"], told["kinds"], told["faults"]) == (None, None, [], [])


def test_a_recording_shorter_than_the_warm_up_is_said_to_have_no_score(
    run_folder: Path, tmp_path: Path
) -> None:
    write_recording(tmp_path / "short.csv", simulate_pump(hours=0.01, seed=4))
    said = evaluate(run_folder, tmp_path / "short.csv", tmp_path)
    assert "not one sample was scored" in said
    assert "Not one sample was scored" in Page(tmp_path / "report.html").words


def test_labels_without_a_fault_give_false_alarms_and_no_areas(
    run_folder: Path, tmp_path: Path
) -> None:
    write_recording(tmp_path / "healthy.csv", simulate_pump(hours=0.1, seed=4))
    said = evaluate(run_folder, tmp_path / "healthy.csv", tmp_path)
    assert "alarms: 0, of them false 0 in 0.1 healthy hours (0.00 a day)" in said
    assert "the labels name no fault" in said


def test_of_many_streams_the_page_draws_some_and_says_so(unlabelled: tuple[Path, str]) -> None:
    found = Page(unlabelled[0] / "report.html")
    assert "Drawn are the 2 streams with most alarms and faults; 1 more" in found.words
    assert len([text for text in found.pictures if "measured and expected" in text]) == 2


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=300), st.integers(1, 20))
def test_an_envelope_is_short_and_keeps_every_extreme(values: list[float], columns: int) -> None:
    y = np.array(values)
    time_s, short = envelope(np.arange(len(y), dtype=float), y, columns=columns)
    assert len(short) == len(time_s) <= max(2 * columns, len(y) if len(y) <= 2 * columns else 0)
    assert (np.nanmin(short), np.nanmax(short)) == (y.min(), y.max())
    assert (np.diff(time_s) > 0).all()


def test_a_gap_in_a_long_line_stays_a_gap() -> None:
    time_s = np.concatenate([np.arange(500.0), np.arange(1500.0, 2000.0)])
    short_s, short = envelope(time_s, np.ones(1000), columns=100)
    assert np.isnan(short[(short_s > 500) & (short_s < 1480)]).all()
    assert np.isfinite(short[short_s < 480]).all()


def test_a_gap_in_a_short_line_stays_a_gap() -> None:
    _, y = envelope(np.array([0.0, 1, 2, 9, 10]), np.arange(5.0))
    np.testing.assert_array_equal(y, [0, 1, 2, np.nan, 3, 4])


def test_neighbouring_rows_are_pooled_to_the_mean_of_what_is_there() -> None:
    edges, means = pooled(np.array([[1.0], [3], [np.nan], [5], [np.nan], [np.nan]]), columns=3)
    assert edges.tolist() == [0, 2, 4, 6]
    np.testing.assert_array_equal(means, [[2], [5], [np.nan]])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "not available"),
        (0.5, "0.5 s"),
        (61, "1 min 1 s"),
        (90_061, "1 d 1 h"),
        (7200, "2 h"),
    ],
)
def test_durations_are_said_in_two_units_at_most(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


def test_a_number_that_is_not_there_is_not_0() -> None:
    assert (number(None), number(0), number(0.0)) == ("not available", "0", "0.000")


def test_thousands_of_alarms_are_shaded_as_one_collection_of_a_picture_s_columns() -> None:
    time_s = 1e9 + np.arange(400_000.0)
    where = np.arange(400_000) % 200 < 20  # 2,000 alarms
    where[100_000:200_000] = False
    axes = Figure().subplots()
    plot_line(axes, time_s, np.zeros(400_000), color="k")
    shade(axes, time_s, where, colour="r", label="alarm on", columns=1000)
    (shades,) = axes.collections
    spans = [path.get_extents() for path in shades.get_paths()]
    days = date2num(dates_of(time_s[[0, 99_820, 200_000, 399_820]]))  # type: ignore[no-untyped-call]  # matplotlib's stubs
    np.testing.assert_allclose([day for span in spans for day in (span.x0, span.x1)], days)
