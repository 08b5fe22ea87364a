"""Runs every benchmark and writes `RESULTS.md` beside this file. No test reads a time from it.

Alone: `python benchmarks/run.py`, or `make bench`.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from edgernn_device.broker import SYSTEM_FOLDERS

HERE = Path(__file__).resolve().parent
COMMAND = "python benchmarks/run.py"
BENCHMARKS = (
    "engine",
    "adapt",
    "agent",
    "durability",
    "training",
    "chunks",
    "layers",
    "quantization",
    "growth",
    "recording",
    "detection",
)
PACKAGES = ("edgernn", "onnxruntime", "numpy", "paho-mqtt", "torch", "polars")


def main() -> None:
    """Every benchmark in a process of its own, so that none finds another's memory in use."""
    began_s = time.monotonic()
    sections = []
    for name in BENCHMARKS:
        print(f"{name} …", file=sys.stderr)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        done = subprocess.run(
            command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True
        )
        print(done.stdout)
        sections.append(done.stdout.strip() + "\n")
    results = _heading(minutes=(time.monotonic() - began_s) / 60) + "\n".join(sections)
    (HERE / "RESULTS.md").write_text(results, encoding="utf-8")


def _heading(*, minutes: float) -> str:
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"""# Benchmark results

Written by `{COMMAND}` (`make bench`) on {datetime.now(UTC):%Y-%m-%d} in {minutes:.1f} minutes.
Times differ from machine to machine; the ratios are what to keep.

* Machine: {_processor()}, {os.cpu_count()} cores; {_accelerator()}
* System: {platform.system()} {platform.machine()}, Python {platform.python_version()}, {_broker()}
* Versions: {versions}

"""


def _processor() -> str:
    """The CPU's model, which `platform.processor` does not tell on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _accelerator() -> str:
    import torch  # noqa: PLC0415 - seconds, and only the workstation has it

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _broker() -> str:
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path=SYSTEM_FOLDERS)
    if binary is None:
        return "no Mosquitto"
    said = subprocess.run([binary, "-h"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0].capitalize()


if __name__ == "__main__":
    main()
