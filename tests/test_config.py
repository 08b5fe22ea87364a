"""The training file: its defaults, its limits, and which recordings it means."""

import math
from pathlib import Path

import pytest

from edgernn.card import AlarmConfig
from edgernn.config import Config, RecordingConfig
from edgernn.errors import EdgernnError
from edgernn.run import config_toml
from edgernn.settings import read_settings

RECORDING = '[[recording]]\npath = "a.csv"\n'


def read(folder: Path, text: str) -> Config:
    path = folder / "pump.toml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path, Config)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(EdgernnError) as caught:
        read(folder, text)
    return str(caught.value).removeprefix(f"{folder / 'pump.toml'}: ")


def test_only_a_recording_must_be_there(tmp_path: Path) -> None:
    assert read(tmp_path, RECORDING) == Config(recording=(RecordingConfig(path="a.csv"),))
    assert refusal(tmp_path, "") == "Object missing required field `recording`"


def test_every_key_written_down_reads_back_the_same(tmp_path: Path) -> None:
    config = Config(
        recording=(RecordingConfig(path="a.csv", first_rows=9),),
        name="p",
        period_s=0.5,
        max_gap_s=3.0,
        alarm=AlarmConfig(false_alarms="2/day", recover_s=2.0),
    )
    assert read(tmp_path, config_toml(config).decode()) == config


@pytest.mark.parametrize(
    ("table", "line", "expected"),
    [
        ("training", "epochs = 0", "epochs: expected 1–"),
        ("training", "patience = 0", "patience: expected 1–"),
        ("training", "streams = 0", "streams: expected 1–65536, got 0"),
        ("training", "streams = 65537", "streams: expected 1–65536, got 65537"),
        ("training", "chunk = 1", "chunk: expected 2–65536, got 1"),
        ("training", "learning_rate = 0", "learning_rate: expected 1e-07–1, got 0"),
        ("training", "learning_rate = 1.5", "learning_rate: expected 1e-07–1, got 1.5"),
        ("training", "learning_rate = nan", "learning_rate: expected 1e-07–1, got nan"),
        ("training", "clip_norm = 0", "clip_norm: expected 1e-06–"),
        ("training", "hide = 0.95", "hide: expected 0–0.9, got 0.95"),
        ("training", "validation = 0.04", "validation: expected 0.05–0.45, got 0.04"),
        ("training", "calibration = 0.7", "calibration: expected 0.05–0.6, got 0.7"),
        ("training", "seed = -1", "seed: expected 0–"),
        ("training", "l1 = -1", "l1: expected 0–1, got -1"),
        ("training", "l2 = 2", "l2: expected 0–1, got 2"),
        ("training", "momentum = 1", "momentum: expected 0–0.999, got 1"),
        ("training", "momentum = 0.9", 'momentum: expected 0 with optimizer = "adam", got 0.9'),
        (
            "training",
            'optimizer = "lion"',
            'optimizer: expected "adam", "adamw", "rmsprop" or "sgd", got "lion"',
        ),
        ("training", 'schedule = "step"', 'schedule: expected "plateau", "cosine" or "constant"'),
        ("training", 'precision = "fp8"', 'precision: expected "auto", "float32" or "bf16"'),
        ("training", 'device = "tpu"', 'device: expected "auto", "cpu" or "cuda", got "tpu"'),
        ("score", "window = 1", "window: expected 2–100000 samples, got 1"),
        ("score", "window = 100001", "window: expected 2–100000 samples, got 100001"),
        ("network", 'kind = "gry"', "kind: expected one of rnn, lstm, gru, fastgrnn, mingru, tcn"),
        ("network", "dropout = 1.2", "dropout: expected 0–0.9, got 1.2"),
        ("network", "conv = 1", "conv: expected 2–256, or 0 for none, got 1"),
        ("network", "rank = 4", 'rank: only for kind = "fastgrnn", here kind = "gru"'),
        ("network", 'activation = "relu"', 'activation: only for kind = "rnn", here kind = "gru"'),
        (
            "network",
            'kind = "rnn"\nlook_ahead = 8',
            'look_ahead: 8 samples of the future, but direction is "causal"; say direction = ',
        ),
        (
            "network",
            'direction = "bidirectional"',
            'look_ahead: direction = "bidirectional" needs 1–1000 samples, got 0',
        ),
        (
            "network",
            'kind = "tcn"\ndirection = "bidirectional"\nlook_ahead = 8',
            "direction: \"bidirectional\" is for kind rnn, lstm, gru, got 'tcn'",
        ),
        ("network", 'branches = [["flow"], ["flow"]]', "branches[1]: channel 'flow' is in two"),
        ("network", 'activation = "selu"', "activation: expected one of tanh, relu, got 'selu'"),
        ("network", 'kind = "tcn"\nresidual = true', 'residual: the blocks of kind = "tcn" add to'),
        ("network", "branches = [[]]", "branches[0]: expected channel names, got none"),
        ("head", 'kinds = ["guess"]', "kinds: expected of forecast, reconstruct, encoder-decoder"),
        ("head", "bottleneck = 2", 'bottleneck: only for "reconstruct", which is not among the'),
        ("head", "window = 8", 'window: only for "encoder-decoder", which is not among the kinds'),
        ("head", "kinds = []", "kinds: expected at least one of forecast"),
        ("head", "window = 1", "window: expected 2–1000 samples, got 1"),
        ("score", 'relation = "vague"', "relation: expected one of conditional, whitened, none"),
        ("adapt", "readout = true\nmemory = 99", "memory: expected 100–1000000 samples, got 99"),
        ("adapt", "scale = true\nmemory = 1000001", "memory: expected 100–1000000 samples, got"),
        ("adapt", "readout = true\nguard = 0.5", "guard: expected 1–1000, got 0.5"),
        ("adapt", "readout = true\nguard = nan", "guard: expected 1–1000, got nan"),
        ("adapt", "readout = true\nfeatures = 33", "features: expected 0–32, got 33"),
        ("adapt", "scale = true\nfeatures = 8", "features: only with readout = true"),
        ("adapt", "memory = 5000", "readout: expected true, or scale = true, beside memory or"),
        (
            "adapt",
            'readout = true\n[head]\nkinds = ["reconstruct"]',
            'readout: only with "forecast" among head.kinds, got reconstruct',
        ),
        ("levels", 'of = ["guess"]', "of: expected of reading, residual, got 'guess'"),
        ("levels", 'of = ["reading", "reading"]', "of: 'reading' is named twice"),
        ("levels", 'of = ["reading"]\nspans = []', "spans: expected 1–6 of them, got 0"),
        ("levels", 'of = ["reading"]\nspans = [0]', "spans: expected 1–1000 samples each, got 0"),
        ("levels", 'of = ["reading"]\nspans = [4, 1]', "spans: expected them to rise, got 4, 1"),
        ("levels", "spans = [1, 8]", "spans: only with levels of something: of is empty"),
        (
            "levels",
            'of = ["reading"]\n[adapt]\nscale = true',
            "of: not beside adapt: levels follow what is new by themselves",
        ),
        (
            "score",
            'relation = "none"\n[levels]\nof = ["reading"]',
            "relation: not with levels.of, which judge channels on their own, got 'none'",
        ),
        ("network", "hidden = 0", "hidden: expected 1–1024, got 0"),
        ("network", "layers = 9", "layers: expected 1–8, got 9"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_path(
    tmp_path: Path, table: str, line: str, expected: str
) -> None:
    assert refusal(tmp_path, f"{RECORDING}[{table}]\n{line}\n").startswith(f"{table}.{expected}")


def test_a_run_from_before_the_guard_was_raised_is_still_read(tmp_path: Path) -> None:
    text = f"{RECORDING}[adapt]\nreadout = false\nmemory = 10000\nguard = 20.0\n"
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    assert not read_settings(tmp_path / "run.toml", Config).adapt.is_on


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("epochs = 3", ""),
        ("[training]\nepoch = 3", "training: "),
        ("[score]\nspan = 3", "score: "),
        ("[alarm]\nbudget = 3", "alarm: "),
        ("[recording.columns]\nuint = 3", "recording[0].columns: "),
    ],
)
def test_an_unknown_key_is_refused_with_its_path(tmp_path: Path, text: str, path: str) -> None:
    files = RECORDING if text.startswith("[") else ""
    tail = "" if files else RECORDING
    found = refusal(tmp_path, f"{files}{text}\n{tail}")
    assert found.startswith(f"{path}unknown key `")


def test_a_file_is_relative_to_the_training_file(tmp_path: Path) -> None:
    ((path, _),) = read(tmp_path, RECORDING).files(tmp_path)
    assert path == tmp_path / "a.csv"


@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_pattern_means_every_file_it_matches_in_order(tmp_path: Path, is_absolute: bool) -> None:
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / "healthy").mkdir(exist_ok=True)
        (tmp_path / "healthy" / name).touch()
    start = f"{tmp_path}/" if is_absolute else ""
    config = Config(recording=(RecordingConfig(path=f"{start}healthy/*.csv"),))
    assert [path.name for path, _ in config.files(tmp_path)] == ["a.csv", "b.csv"]


def test_files_keep_what_their_own_table_says(tmp_path: Path) -> None:
    text = '[[recording]]\npath = "a.csv"\nfirst_rows = 5\n[[recording]]\npath = "b.csv"\n'
    found = read(tmp_path, text).files(tmp_path)
    assert [(path.name, item.first_rows) for path, item in found] == [("a.csv", 5), ("b.csv", None)]


@pytest.mark.parametrize("gap", [-1.0, math.inf, math.nan])
def test_a_gap_that_makes_no_sense_is_refused(gap: float) -> None:
    with pytest.raises(ValueError, match="max_gap_s: expected 0 or more seconds"):
        Config(recording=(RecordingConfig(path="a.csv"),), max_gap_s=gap)


def test_a_bad_budget_is_refused_before_training() -> None:
    with pytest.raises(EdgernnError, match=r"alarm\.false_alarms"):
        Config(recording=(RecordingConfig(path="a.csv"),), alarm=AlarmConfig(false_alarms="1/moon"))


def test_fewer_than_one_row_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="first_rows: expected 1 or more, got -3"):
        RecordingConfig(path="a.csv", first_rows=-3)


def test_what_is_held_out_leaves_a_fifth_to_learn_from(tmp_path: Path) -> None:
    text = f"{RECORDING}[training]\ncalibration = 0.45\nvalidation = "
    assert read(tmp_path, text + "0.35").training.validation == 0.35
    assert refusal(tmp_path, text + "0.36") == (
        "training.validation: expected 0.05–0.35 beside training.calibration = 0.45, "
        "so that 20% is left to learn from, got 0.36"
    )
