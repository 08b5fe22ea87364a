"""Fixtures that several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from mosquitto import Mosquitto, find_mosquitto

if TYPE_CHECKING:  # the device's tests run where there is no torch
    from edgernn.run import Run

# two threads on two busy cores train thirty times as long as one
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("no deadline", deadline=None)  # no test fails on a time
settings.load_profile("no deadline")


@pytest.fixture(scope="session", autouse=True)
def _state_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What agents note about artefacts that passed is not for the user's own folder."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker of its own for each test."""
    if find_mosquitto() is None:
        pytest.skip("no mosquitto on the PATH or in /usr/sbin")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with Mosquitto(folder) as broker:
        yield broker


@pytest.fixture(scope="session")
def trained_run() -> "Run":
    """A small detector of the simulated pump; not to be changed."""
    from make_artefact import small_run

    return small_run()


@pytest.fixture(scope="session")
def run_folder(trained_run: "Run", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `trained_run`; not to be changed."""
    from edgernn.run import EpochLoss, save_run

    folder = tmp_path_factory.mktemp("runs") / "pump"
    save_run(folder, trained_run, [EpochLoss(1, 1.5, 1.25, 0.01)])
    return folder


@pytest.fixture(scope="session")
def artefact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 artefact of `trained_run`, recordings beside it. Where nothing can be trained,
    EDGERNN_TEST_ARTEFACT names one that tests/make_artefact.py wrote before."""
    if made := os.environ.get("EDGERNN_TEST_ARTEFACT"):
        return Path(made)
    from make_artefact import ARTEFACT, write_all

    folder = tmp_path_factory.mktemp("artefact")
    write_all(folder, request.getfixturevalue("trained_run"))
    return folder / ARTEFACT


@pytest.fixture(scope="session")
def healthy_csv(artefact: Path) -> Path:
    """Half an hour of a healthy pump."""
    return artefact.with_name("healthy.csv")


@pytest.fixture(scope="session")
def faulty_csv(artefact: Path) -> Path:
    """Half an hour of a pump with a leak from its middle on."""
    return artefact.with_name("faulty.csv")
