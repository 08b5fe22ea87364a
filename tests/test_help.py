"""`--help` and wrong arguments answer at once: what is heavy is loaded when a command runs."""

import subprocess
import sys

from edgernn.benchmark.corpus import PROTOCOLS
from edgernn.cli import COMMANDS
from edgernn_export.vocabulary import SETS

HEAVY = ("torch", "scipy", "onnx", "onnxscript", "optuna", "matplotlib", "sklearn")
ASK_ALL = f"""
import sys
from edgernn.cli import COMMANDS, edgernn
for name in COMMANDS:
    edgernn.main([name, "--help"], standalone_mode=False)
print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules])
"""


def run(program: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )


def test_the_help_of_no_command_loads_what_is_heavy() -> None:
    done = run(ASK_ALL)
    assert done.stdout.splitlines()[-1] == "loaded:", done.stderr
    assert done.stdout.count("Usage: ") == len(COMMANDS)


def test_without_an_extra_there_is_help_and_then_a_sentence() -> None:
    program = "import sys; sys.modules['optuna'] = None; from edgernn.cli import main; main()"
    assert run(program, "tune", "--help").returncode == 0
    done = run(program, "tune", "study.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "edgernn: tune needs optuna, which this installation has not: pip install 'edgernn[tune]'\n"
    )


def test_the_sets_that_help_names_are_those_that_are_read() -> None:
    assert tuple(PROTOCOLS) == SETS
