"""The service: exit codes as documented, and a unit that systemd takes and finds tight."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgernn.errors import EdgernnError, Exit, ending_with
from edgernn_device.agent import HUNG_AFTER_S
from edgernn_device.verify import PATIENCE_S

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "device" / "systemd" / "edgernn-agent.service"
LARGEST_EXPOSURE = 1.5
"""Of 10, by `systemd-analyze security`: 1.1 was found with systemd 252."""


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    """Skips where there is none, or one that knows no --offline (before 250)."""
    binary = shutil.which("systemd-analyze")
    if binary is None:
        pytest.skip("no systemd-analyze on the PATH")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    if int(re.findall(r"\d+", version.stdout)[0]) < 250:
        pytest.skip("systemd-analyze is older than 250")
    return subprocess.run([binary, *words], capture_output=True, text=True, check=False)


def unit() -> dict[str, str]:
    """The keys of [Service], of repeated ones the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace("/opt/edgernn/bin/edgernn", sys.executable))
    done = analyze("verify", str(here))
    assert (done.returncode, [x for x in done.stderr.splitlines() if UNIT.name in x]) == (0, [])


def test_the_unit_leaves_the_service_little_to_attack() -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(exposure) <= LARGEST_EXPOSURE


def test_the_unit_tries_again_unless_a_person_is_needed() -> None:
    said = unit()
    assert said["Restart"] == "always"
    assert {int(code) for code in said["RestartPreventExitStatus"].split()} == {
        Exit.SETTINGS,
        Exit.ARTEFACT,
    }


def test_systemd_is_as_patient_as_the_agent() -> None:
    said = unit()
    assert float(said["WatchdogSec"]) >= HUNG_AFTER_S
    assert float(said["TimeoutStartSec"]) >= PATIENCE_S


def test_the_docs_have_every_exit_code() -> None:
    text = (ROOT / "docs" / "agent.md").read_text().split("## Exit codes")[1].split("\n## ")[0]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert codes == set(Exit)


def test_an_error_ends_with_2_unless_where_it_was_raised_says_otherwise() -> None:
    @ending_with(Exit.STATE)
    def fail() -> None:
        raise EdgernnError("no room")

    with pytest.raises(EdgernnError) as caught:
        fail()
    assert (caught.value.exit_code, EdgernnError("x").exit_code) == (Exit.STATE, Exit.SETTINGS)


def test_the_container_has_the_base_install_alone_and_no_root() -> None:
    text = (ROOT / "device" / "Containerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001"]
    assert "edgernn[" not in text
    assert "--constraint constraints.txt" in text
