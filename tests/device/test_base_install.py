"""The base install is what a Pi runs: no torch, no onnx, nothing of the workstation."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "onnx", "onnxscript", "polars", "scipy", "matplotlib", "cryptography")
DEVICE_COMMANDS = ("inspect", "verify", "agent", "record", "replay", "watch", "broker")
WORKSTATION_COMMANDS = {
    "simulate pump -o x.csv": "train",
    "train x": "train",
    "evaluate x y": "train",
    "benchmark nab x": "export",
    "export x -o x.onnx": "export",
    "keygen x": "sign",
    "sign x --key y": "sign",
}
"""Command line → the extra that it needs."""
is_base = importlib.util.find_spec("torch") is None
on_base_only = pytest.mark.skipif(not is_base, reason="this environment has torch; `make base`")


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=60, check=False
    )


def loaded_after(statement: str) -> set[str]:
    """Which heavy packages a statement brings in."""
    done = run("-c", f"{statement}\nimport sys; print(*[m for m in {HEAVY!r} if m in sys.modules])")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_agent_loads_nothing_of_the_workstation() -> None:
    assert loaded_after("import edgernn_device.agent, edgernn_device.cli") == set()


def test_help_loads_no_numerical_package() -> None:
    statement = "from edgernn.cli import edgernn; edgernn.main(['--help'], standalone_mode=False)"
    done = run("-c", f"{statement}\nimport sys; print('numpy' in sys.modules)")
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("command", DEVICE_COMMANDS)
def test_each_command_of_the_device_has_its_help(command: str) -> None:
    done = run("-m", "edgernn", command, "--help")
    assert (done.returncode, done.stderr) == (0, "")


@on_base_only
def test_torch_and_onnx_are_absent() -> None:
    assert [name for name in ("torch", "onnx") if importlib.util.find_spec(name)] == []


@on_base_only
def test_the_installed_packages_are_tested_and_not_the_checkout() -> None:
    found = run(
        "-Ic", "import edgernn, edgernn_device; print(edgernn.__file__, edgernn_device.__file__)"
    )
    assert found.stdout.count("site-packages") == 2


@on_base_only
@pytest.mark.parametrize("name", ["agent.example.toml", "edgernn-agent.service"])
def test_the_installation_brings_the_files_of_the_service_along(name: str) -> None:
    checkout = next((Path(__file__).parents[2] / "device").rglob(name))
    installed = Path(sys.prefix) / "share" / "edgernn" / name
    assert installed.read_text() == checkout.read_text()


@on_base_only
@pytest.mark.parametrize("command", WORKSTATION_COMMANDS)
def test_a_command_of_the_workstation_says_in_one_line_what_to_install(command: str) -> None:
    done = run("-m", "edgernn", *command.split())
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert f"pip install 'edgernn[{WORKSTATION_COMMANDS[command]}]'" in line
