"""Signals: one stops cleanly, two at once do no harm, a second one later ends the process."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from edgernn_device.stopping import IMPATIENT_S, stop_on_signals

WAIT = (
    "import time\n"
    "from edgernn_device.stopping import stop_on_signals\n"
    "with stop_on_signals() as stop:\n"
    "    print('ready', flush=True)\n"
    "    stop.wait()\n"
    "    print('stopping', flush=True)\n"
    "    time.sleep(float({rest}))\n"
)


def waiting(rest_s: float) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT.format(rest=rest_s)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("signals", [1, 2, 30])
def test_signals_at_once_are_one_wish(signals: int) -> None:
    process = waiting(0.0)
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "stopping\n")


def test_a_signal_a_second_later_ends_the_process_the_usual_way() -> None:
    process = waiting(60.0)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "stopping\n"
    time.sleep(IMPATIENT_S + 0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    process.stdout.close()


def test_afterwards_all_is_as_it_was() -> None:
    before, threads = signal.getsignal(signal.SIGINT), threading.active_count()
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
    assert signal.getsignal(signal.SIGINT) is before
    assert threading.active_count() == threads
