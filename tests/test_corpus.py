"""Folders of benchmarks: small ones written here, bad ones refused, and the public ones as read."""

import gzip
import json
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from edgernn.benchmark.corpus import read_corpus
from edgernn.benchmark.series import Series
from edgernn.errors import EdgernnError

DATA = Path(os.environ.get("EDGERNN_DATA", Path(__file__).parents[2] / "shared" / "data"))


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(data.encode()) if path.suffix == ".gz" else data.encode())
    return path


def minutes(count: int) -> list[str]:
    return [f"2026-01-01 {row // 60:02}:{row % 60:02}:00" for row in range(count)]


@pytest.fixture
def nab(tmp_path: Path) -> Path:
    """Forty rows, a window over three of them; and a file without one."""
    rows = [f"{time},{row}" for row, time in enumerate(minutes(40))]
    write(tmp_path / "data" / "pumps" / "one.csv", "timestamp,value", *rows)
    write(tmp_path / "data" / "two.csv", "timestamp,value", *rows)
    windows = {"two.csv": [], "pumps/one.csv": [["2026-01-01 00:20:00.000000", "2026-01-01 00:22"]]}
    write(tmp_path / "labels" / "combined_windows.json", json.dumps(windows))
    return tmp_path


SENSORS = "datetime;Current;Volume Flow RateRMS"


@pytest.fixture
def skab(tmp_path: Path) -> Path:
    """Files 2 and 10 with a fault in rows 410 to 419, and one without."""
    times = minutes(430)
    for name in ("valve1/2.csv", "valve1/10.csv"):
        rows = [
            f"{t};{r};1.5;{float(410 <= r < 420)};{float(r in (410, 420))}"
            for r, t in enumerate(times)
        ]
        write(tmp_path / name, f"{SENSORS};anomaly;changepoint", *rows)
    healthy = [f"{time};1.0;2.0" for time in times]
    write(tmp_path / "anomaly-free" / "anomaly-free.csv", SENSORS, *healthy)
    return tmp_path


@pytest.fixture
def smd(tmp_path: Path) -> Path:
    """One machine of two channels: 300 rows to learn from, 800 to score, faulty from 400 to 409."""
    name = "machine-1-1"
    write(tmp_path / "train" / f"{name}.csv.gz", *["0.5,0.25"] * 300)
    write(tmp_path / "test" / f"{name}.csv.gz", *(f"{row / 800},0" for row in range(800)))
    labels = ("1" if 400 <= row < 410 else "0" for row in range(800))
    write(tmp_path / "test_label" / f"{name}.csv.gz", *labels)
    write(tmp_path / "interpretation_label" / f"{name}.txt", "400-410:2,1")
    return tmp_path


GECCO = "Time,Tp,pH,EVENT"


@pytest.fixture
def gecco(tmp_path: Path) -> Path:
    """Row 5 is missing, row 6 half; an event in rows 202 to 204."""
    cells = [f"6.5,{row}" for row in range(1000)]
    cells[5], cells[6] = ",", "6.5,NA"
    rows = [f"{t},{cells[r]},{int(202 <= r < 205)}" for r, t in enumerate(minutes(1000))]
    write(tmp_path / "train.csv.gz", GECCO, *rows)
    return tmp_path


def test_a_nab_folder_is_read_in_the_order_of_names_with_its_probation(nab: Path) -> None:
    corpus = read_corpus("nab", nab)
    assert [series.name for series in corpus.series] == ["pumps/one.csv", "two.csv"]
    one, truth = corpus.series[0], corpus.truths[0]
    assert (one.channels, one.period_s, one.first_rows) == (("value",), 60.0, 6)
    assert (truth.windows, truth.scored_from) == (((20, 23),), 6)
    assert np.flatnonzero(truth.is_anomalous).tolist() == [20, 21, 22]
    assert corpus.truths[1].windows == ()
    np.testing.assert_array_equal(one.learnable[:, 0], range(6))


def test_rows_stay_in_order_of_arrival_even_where_times_repeat_or_go_back(nab: Path) -> None:
    times = minutes(40)
    times[30] = times[29]
    times[35] = times[31]
    rows = [f"{time},{row}" for row, time in enumerate(times)]
    write(nab / "data" / "two.csv", "timestamp,value", *rows)
    two = read_corpus("nab", nab).series[1]
    np.testing.assert_array_equal(two.x[:, 0], range(40))
    assert two.time_s is not None
    assert two.time_s[30] == two.time_s[29]
    assert two.time_s[35] < two.time_s[34]


def test_a_window_begins_at_the_first_of_rows_with_one_time(nab: Path) -> None:
    times = minutes(40)
    times[21] = times[20]
    rows = [f"{time},{row}" for row, time in enumerate(times)]
    write(nab / "data" / "pumps" / "one.csv", "timestamp,value", *rows)
    assert read_corpus("nab", nab).truths[0].windows == ((20, 23),)


def test_probation_is_at_most_750_rows(nab: Path) -> None:
    rows = [f"{1_700_000_000 + 60 * row},1" for row in range(6_000)]
    write(nab / "data" / "two.csv", "timestamp,value", *rows)
    assert read_corpus("nab", nab).truths[1].scored_from == 750


def test_an_empty_cell_of_a_value_is_missing(nab: Path) -> None:
    rows = [f"{time},{'' if row == 9 else 1.0}" for row, time in enumerate(minutes(40))]
    write(nab / "data" / "two.csv", "timestamp,value", *rows)
    assert np.flatnonzero(np.isnan(read_corpus("nab", nab).series[1].x[:, 0])).tolist() == [9]


def test_a_skab_folder_is_read_with_its_400_rows_and_its_healthy_run_aside(skab: Path) -> None:
    corpus = read_corpus("skab", skab)
    assert [series.name for series in corpus.series] == ["valve1/2.csv", "valve1/10.csv"]
    series, truth = corpus.series[0], corpus.truths[0]
    assert series.channels == ("Current", "Volume Flow RateRMS")
    assert (series.x.shape, series.learnable.shape) == ((430, 2), (400, 2))
    assert (truth.windows, truth.scored_from) == (((410, 420),), 400)
    assert truth.is_changepoint is not None
    assert np.flatnonzero(truth.is_changepoint).tolist() == [410, 420]
    assert [healthy.name for healthy in corpus.healthy] == ["anomaly-free/anomaly-free.csv"]
    assert corpus.healthy[0].channels == series.channels


def test_a_folder_that_holds_skab_files_itself_will_do(skab: Path) -> None:
    corpus = read_corpus("skab", skab / "valve1")
    assert [series.name for series in corpus.series] == ["2.csv", "10.csv"]
    assert corpus.healthy == ()


def test_an_smd_folder_is_read_with_its_train_half_before(smd: Path) -> None:
    corpus = read_corpus("smd", smd)
    series, truth = corpus.series[0], corpus.truths[0]
    assert (series.name, series.channels, series.time_s) == ("machine-1-1.csv", ("1", "2"), None)
    assert (series.x.shape, series.learnable.shape, series.first_rows) == ((800, 2), (300, 2), 0)
    assert (truth.windows, truth.scored_from) == (((400, 410),), 0)
    assert truth.blamed == (((400, 410), (1, 0)),)


def test_smd_may_be_as_omnianomaly_publishes_it(smd: Path) -> None:
    for packed in [*smd.glob("t*/*.csv.gz")]:
        packed.with_name("machine-1-1.txt").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert read_corpus("smd", smd).series[0].x.shape == (800, 2)


@pytest.mark.parametrize(("first", "rows"), [(400, 200), (250, 150)])
def test_tsb_ad_learns_from_a_quarter_or_to_100_rows_before_the_first_anomaly(
    smd: Path, first: int, rows: int
) -> None:
    labels = ("1" if first <= row < first + 10 else "0" for row in range(800))
    write(smd / "test_label" / "machine-1-1.csv.gz", *labels)
    corpus = read_corpus("smd", smd, protocol="tsb-ad")
    assert corpus.series[0].first_rows == rows
    assert len(corpus.series[0].before) == 0
    assert corpus.truths[0].scored_from == 0


def test_tsb_ad_leaves_out_rows_of_gecco_with_a_missing_value(gecco: Path) -> None:
    corpus = read_corpus("gecco", gecco)
    series, truth = corpus.series[0], corpus.truths[0]
    assert corpus.protocol == "tsb-ad"
    assert series.channels == ("Tp", "pH")
    np.testing.assert_array_equal(series.x[3:7, 1], [3, 4, 7, 8])
    assert (series.first_rows, truth.windows) == (100, ((200, 203),))


def test_gecco_s_own_protocol_learns_from_one_file_and_scores_another(gecco: Path) -> None:
    rows = [f"{time},7,8,0" for time in minutes(30)]
    write(gecco / "test.csv", GECCO, *rows)
    corpus = read_corpus("gecco", gecco, protocol="official")
    series = corpus.series[0]
    assert (series.name, series.x.shape, series.learnable.shape) == ("test.csv", (30, 2), (1000, 2))
    assert np.isnan(series.before[5]).all()


def test_what_a_detector_may_see_holds_no_label() -> None:
    assert [field.name for field in fields(Series)] == [
        "name",
        "channels",
        "period_s",
        "time_s",
        "x",
        "before",
        "first_rows",
    ]


def refusal(benchmark: str, folder: Path, protocol: str = "") -> str:
    with pytest.raises(EdgernnError) as caught:
        read_corpus(benchmark, folder, protocol=protocol)
    return str(caught.value)


def test_an_unknown_benchmark_protocol_or_folder_is_refused(tmp_path: Path) -> None:
    assert refusal("yahoo", tmp_path) == (
        'benchmark: expected nab or skab or smd or gecco, got "yahoo"'
    )
    assert refusal("nab", tmp_path, "tsb-ad") == 'protocol of nab: expected official, got "tsb-ad"'
    assert "no such folder, expected a folder laid out as smd is" in refusal("smd", tmp_path / "x")
    assert "is a file" in refusal("smd", write(tmp_path / "a"))


@pytest.mark.parametrize(
    ("benchmark", "expected"),
    [
        ("nab", "expected files data/**/*.csv, found none"),
        ("skab", "expected files *.csv or */*.csv, found none"),
        ("smd", "expected a file for each machine, in .csv.gz or .csv or .txt; found none"),
        ("gecco", "expected train.csv or train.csv.gz, found 0"),
    ],
)
def test_an_empty_folder_is_refused(tmp_path: Path, benchmark: str, expected: str) -> None:
    assert expected in refusal(benchmark, tmp_path)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (
            {"two.csv": []},
            'no windows for data/pumps/one.csv; expected a key "pumps/one.csv", [] if',
        ),
        ({"two.csv": [], "data/two.csv": [], "pumps/one.csv": []}, "windows of two.csv twice"),
        (
            {"two.csv": [], "pumps/one.csv": [], "three.csv": []},
            "windows of three.csv, which is not in",
        ),
        ([], "expected lists of windows by file: Expected `object`, got `array`"),
    ],
)
def test_labels_that_do_not_name_the_files_that_are_there_are_refused(
    nab: Path, labels: object, expected: str
) -> None:
    write(nab / "labels" / "combined_windows.json", json.dumps(labels))
    assert expected in refusal("nab", nab)


def test_a_second_channel_in_the_layout_of_one_is_refused(nab: Path) -> None:
    rows = [f"{time},{row},7" for row, time in enumerate(minutes(40))]
    write(nab / "data" / "two.csv", "timestamp,value,flow", *rows)
    assert "expected columns timestamp and value, got 'flow' beside them" in refusal("nab", nab)


def test_labels_may_name_files_from_the_folder_on(nab: Path) -> None:
    labels = nab / "labels" / "combined_windows.json"
    windows = json.loads(labels.read_text())
    usual = [truth.windows for truth in read_corpus("nab", nab).truths]
    write(labels, json.dumps({f"data/{name}": found for name, found in windows.items()}))
    assert [truth.windows for truth in read_corpus("nab", nab).truths] == usual != [(), ()]


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([["soon", "later"]], 'two.csv: expected a time, got "soon"'),
        ([["2026-01-01 00:20:30", "2026-01-01 00:22"]], "where the file has no row"),
        ([["2026-01-01 00:22", "2026-01-01 00:20"]], "before it begins"),
        (
            [["2026-01-01 00:18", "2026-01-01 00:22"], ["2026-01-01 00:20", "2026-01-01 00:22"]],
            "two windows that overlap",
        ),
    ],
)
def test_windows_that_do_not_fit_their_file_are_refused(
    nab: Path, windows: list[list[str]], expected: str
) -> None:
    labels = {"pumps/one.csv": [], "two.csv": windows}
    write(nab / "labels" / "combined_windows.json", json.dumps(labels))
    assert expected in refusal("nab", nab)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["time,value", "1,1"], 'expected columns "timestamp", "value", got "time", "value"'),
        (["timestamp,value"], "a header and no rows"),
        (
            ["timestamp,value", *["2026-01-01,1"] * 2],
            "expected at least 2 rows to learn from, got 0",
        ),
        (["timestamp,value", *["2026-01-01,1"] * 40], "expected times that go on from row to row"),
        (["timestamp,value", "1,1", "2,two"], 'line 3, column "value": expected a number of'),
        (["timestamp,value", "1,1", "2,inf"], "expected a number of float32, got 'inf'"),
        (["timestamp,value", "1,1", "later,2"], 'line 3, column "timestamp": expected a time'),
        (["timestamp,value", "1,1", ",2"], "expected a time, got nothing"),
        (["timestamp,value", "1,1", "2"], "line 3: expected 2 cells, got 1"),
        (["timestamp,value", "1,1", "2,3,4"], "line 3: expected 2 cells, got 3"),
    ],
)
def test_a_file_that_is_not_as_the_layout_has_it_is_refused_with_its_line(
    nab: Path, lines: list[str], expected: str
) -> None:
    write(nab / "data" / "two.csv", *lines)
    said = refusal("nab", nab)
    assert "two.csv" in said
    assert expected in said


def test_a_skab_file_too_short_or_without_labels_is_refused(skab: Path) -> None:
    path = skab / "valve1" / "2.csv"
    lines = path.read_text().splitlines()
    write(path, *lines[:401])
    assert "expected more than the 400 rows that are learnt from, got 400" in refusal("skab", skab)
    write(path, *(line.rsplit(";", 1)[0] for line in lines))
    assert '"changepoint" not there' in refusal("skab", skab)
    write(path, lines[0], *(line.replace(";0.0;", ";0.5;") for line in lines[1:]))
    assert "line 2, column \"anomaly\": expected 0 or 1, got '0.5'" in refusal("skab", skab)


def test_smd_parts_that_do_not_fit_each_other_are_refused(smd: Path) -> None:
    name = "machine-1-1.csv.gz"
    write(smd / "test_label" / name, *["0"] * 799)
    assert "expected one label for each of 800 rows, got 799 rows of 1" in refusal("smd", smd)
    write(smd / "test_label" / name, *["0"] * 800)
    assert "expected at least one anomaly" in refusal("smd", smd, "tsb-ad")
    write(smd / "interpretation_label" / "machine-1-1.txt", "400-410:3")
    assert "line 1: expected first-end:channel,… within 800 rows and 2 ch" in refusal("smd", smd)
    write(smd / "train" / name, *["0.5"] * 300)
    assert "2 columns, but 1 in" in refusal("smd", smd)
    (smd / "train" / name).unlink()
    assert "train: expected machine-1-1 in .csv.gz or .csv or .txt, found none" in refusal(
        "smd", smd
    )


def test_gecco_without_a_later_file_has_no_official_protocol(gecco: Path) -> None:
    assert "expected test.csv or test.csv.gz, found 0" in refusal("gecco", gecco, "official")


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no benchmark data (EDGERNN_DATA)")


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("benchmark", "folder", "protocol", "files", "rows", "windows"),
    [
        ("nab", "nab", "official", 29, 197_177, 59),
        ("skab", "skab", "official", 16, 18_160, 16),
        ("smd", "smd", "official", 4, 94_789, 70),
        ("gecco", "gecco2018", "tsb-ad", 1, 138_521, 51),
    ],
)
def test_the_public_folders_are_read_whole(
    benchmark: str, folder: str, protocol: str, files: int, rows: int, windows: int
) -> None:
    corpus = read_corpus(benchmark, DATA / folder, protocol=protocol)
    assert len(corpus.series) == len(corpus.truths) == files
    assert sum(len(series.x) for series in corpus.series) == rows
    assert sum(len(truth.windows) for truth in corpus.truths) == windows


@pytest.mark.data
@needs_data
def test_what_tsb_ad_learns_from_is_what_its_file_names_state() -> None:
    smd = read_corpus("smd", DATA / "smd", protocol="tsb-ad").series
    rows = {series.name: series.first_rows for series in smd}
    assert (rows["machine-2-1.csv"], rows["machine-2-8.csv"]) == (5_923, 5_925)
    assert read_corpus("gecco", DATA / "gecco2018").series[0].first_rows == 16_165
