"""The run folder: a round trip, and a sentence for each file that is missing or foreign."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edgernn.card import Card, encode_card
from edgernn.errors import EdgernnError
from edgernn.recording import Recording, Track, write_recording
from edgernn.run import (
    CARD,
    CONFIG,
    HEALTHY,
    LOSS,
    WEIGHTS,
    EpochLoss,
    Run,
    load_run,
    pick_device,
    save_run,
)
from edgernn.simulate.pump import simulate_pump
from edgernn.training.cli import train

if TYPE_CHECKING:
    from edgernn.run import Run


@pytest.fixture
def folder(run_folder: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(run_folder, tmp_path / "pump"))


def refusal(folder: Path) -> str:
    with pytest.raises(EdgernnError) as caught:
        load_run(folder)
    return str(caught.value)


def test_a_run_scores_the_same_after_saving_and_loading(
    trained_run: "Run", run_folder: Path
) -> None:
    loaded = load_run(run_folder)
    x = torch.from_numpy(trained_run.healthy.tracks[0].x[:300]).unsqueeze(1)
    with torch.no_grad():
        before, after = (
            run.detector(x, *run.detector.fresh_state(1)) for run in (trained_run, loaded)
        )
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_run_has_the_same_card_and_configuration_after_loading(
    trained_run: "Run", run_folder: Path
) -> None:
    loaded = load_run(run_folder)
    assert (loaded.card, loaded.config) == (trained_run.card, trained_run.config)


def test_a_run_has_the_same_healthy_samples_after_loading(
    trained_run: "Run", run_folder: Path
) -> None:
    before, after = trained_run.healthy, load_run(run_folder).healthy
    assert (before.channels, before.units, before.period_s) == (
        after.channels,
        after.units,
        after.period_s,
    )
    for a, b in zip(before.tracks, after.tracks, strict=True):
        assert np.array_equal(a.x, b.x, equal_nan=True)


def test_saving_twice_gives_the_same_bytes(
    trained_run: "Run", run_folder: Path, tmp_path: Path
) -> None:
    save_run(tmp_path / "again", trained_run, [EpochLoss(1, 1.5, 1.25, 0.01)])
    for name in (CONFIG, CARD, WEIGHTS, LOSS):
        assert (tmp_path / "again" / name).read_bytes() == (run_folder / name).read_bytes()


def test_losses_are_a_table_with_a_row_an_epoch(run_folder: Path) -> None:
    lines = (run_folder / LOSS).read_text().splitlines()
    assert lines == ["epoch,training,validation,learning_rate", "1,1.5,1.25,0.01"]


@pytest.mark.parametrize("name", [CONFIG, CARD, WEIGHTS, HEALTHY])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(folder) == (f"{folder}: not a run folder of `edgernn train`: {name} is missing")


@pytest.mark.parametrize("name", [CONFIG, CARD, WEIGHTS, HEALTHY])
@pytest.mark.parametrize("content", [b"", b"\x00\xffnoise", b"{}", b"a = 1\n"])
def test_a_foreign_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert refusal(folder).startswith(f"{folder / name}: ")


def test_truncated_weights_are_named(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    assert refusal(folder).startswith(f"{folder / WEIGHTS}: does not fit config.toml: ")


def test_weights_of_another_network_do_not_fit(folder: Path) -> None:
    config = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(config.replace("hidden = 16", "hidden = 8"))
    assert refusal(folder).startswith(f"{folder / WEIGHTS}: does not fit config.toml: ")


def test_the_card_of_another_machine_does_not_fit(folder: Path, trained_run: "Run") -> None:
    card: Card = msgspec.structs.replace(trained_run.card, channels=trained_run.card.channels[:3])
    (folder / CARD).write_text(encode_card(card), encoding="utf-8")
    assert refusal(folder).startswith(f"{folder / WEIGHTS}: does not fit config.toml: ")


def test_an_unknown_key_of_the_configuration_is_refused(folder: Path) -> None:
    with (folder / CONFIG).open("a") as file:
        file.write("\n[colours]\nblue = 1\n")
    assert "unknown key `colours`" in refusal(folder)


@pytest.mark.parametrize(
    ("make", "what"), [(lambda path: None, "no such folder"), (Path.touch, "is a file")]
)
def test_what_is_no_folder_is_a_sentence(
    tmp_path: Path, make: Callable[[Path], None], what: str
) -> None:
    make(tmp_path / "x")
    assert refusal(tmp_path / "x") == (
        f"{tmp_path / 'x'}: {what}, expected the folder that `edgernn train` wrote"
    )


def test_the_cpu_is_what_was_asked_for_or_what_there_is() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(EdgernnError, match=r'^training\.device: "cuda" was asked for'):
        pick_device("cuda")


def test_a_healthy_stretch_of_another_machine_is_refused(folder: Path) -> None:
    track = Track("healthy", np.arange(20.0), np.ones((20, 1), np.float32), None)
    write_recording(folder / HEALTHY, Recording(("p",), ("",), (track,), 1.0, ()))
    assert "healthy.parquet and card.json have different channels" in refusal(folder)


def test_a_configuration_with_another_window_is_refused(folder: Path) -> None:
    text = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(text.replace("window = 60", "window = 30"))
    assert "describe different detectors" in refusal(folder)


def test_a_new_training_takes_away_what_was_found_out_about_the_old_detector(
    trained_run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "pump"
    save_run(folder, trained_run, [EpochLoss(1, 1.5, 1.25, 0.01)])
    write_recording(tmp_path / "x.csv", simulate_pump(hours=0.3, seed=1))
    (folder / "gradient.png").touch()
    for name in ("faulty", "noted"):
        (folder / "evaluation" / name).mkdir(parents=True)
        for file in ("metrics.json", "report.html", "folds.json", "folds.csv"):
            (folder / "evaluation" / name / file).touch()
    (folder / "evaluation" / "noted" / "notes.txt").touch()
    words = [str(tmp_path / "x.csv"), "-o", str(folder), "--epochs", "1", "--force"]
    assert CliRunner().invoke(train, words, catch_exceptions=False).exit_code == 0
    assert not (folder / "gradient.png").exists()
    left = [path.relative_to(folder / "evaluation") for path in (folder / "evaluation").rglob("*")]
    assert sorted(map(str, left)) == ["noted", "noted/notes.txt"]


def test_a_training_that_is_refused_leaves_no_folder(healthy_csv: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("".join(healthy_csv.read_text().splitlines(keepends=True)[:9]))
    words = [str(few), "-o", str(tmp_path / "runs" / "few")]
    with pytest.raises(EdgernnError, match="the recording is too short"):
        CliRunner().invoke(train, words, catch_exceptions=False)
    assert not (tmp_path / "runs" / "few").exists()
