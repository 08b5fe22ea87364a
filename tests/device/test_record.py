"""Recording: the tape alone, then live samples over a real Mosquitto, cut off in every way."""

import csv
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mosquitto import Mosquitto, free_port

from edgernn.errors import EdgernnError
from edgernn.layout import Columns, find_layout, read_rows
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.link import Link
from edgernn_device.payload import RawSample
from edgernn_device.record import Recorded, record
from edgernn_device.tape import Tape

WAIT_S = 10.0
START_S = 1_780_000_000.0

PROGRAM = """
import sys
from pathlib import Path
from edgernn_device.address import Access, BrokerAddress
from edgernn_device.record import record
from edgernn_device.stopping import stop_on_signals
path, port = Path(sys.argv[1]), int(sys.argv[2])
with stop_on_signals() as stop:
    ready = lambda: print("ready", flush=True)
    access = Access(address=BrokerAddress("127.0.0.1", port))
    print(record(path, access, channels=["x"], stop=stop, on_ready=ready).samples)
"""


class KeptFile(BytesIO):
    """What a file would hold, also after it was closed."""

    text = ""

    def close(self) -> None:
        self.text = self.getvalue().decode()

    def fileno(self) -> int:
        return sys.__stderr__.fileno() if sys.__stderr__ else 2


def sample(i: int, **values: float) -> RawSample:
    return RawSample(time_s=START_S + i, seq=None, values=values or {"x": float(i)})


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def access_to(broker: Mosquitto) -> Access:
    return Access(address=BrokerAddress.parse(broker.address))


@contextmanager
def publishing(broker: Mosquitto) -> Iterator[Callable[..., None]]:
    """A function that publishes JSON to a stream and returns once the broker has it."""
    link = Link(access_to(broker), client_id="publisher")
    link.start()

    def publish(content: Any, stream: str = "p", count: int = 1) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        for _ in range(count):
            link.publish(f"sensors/{stream}/telemetry", payload, qos=1)
        assert link.wait_until_waiting(0, timeout_s=WAIT_S)

    yield publish
    link.stop()


@contextmanager
def recording(path: Path, broker: Mosquitto, **options: Any) -> Iterator[list[Recorded]]:
    """Records in a thread while the block runs; afterwards waits for its result."""
    ready = threading.Event()
    results: list[Recorded] = []
    options = {"duration_s": 20, "on_ready": ready.set, **options}
    thread = threading.Thread(
        target=lambda: results.append(record(path, access_to(broker), **options))
    )
    thread.start()
    assert ready.wait(WAIT_S)
    yield results
    thread.join(3 * WAIT_S)
    assert results


samples = st.builds(
    RawSample,
    time_s=st.integers(0, 4_000_000_000_000_000).map(lambda us: us / 1e6),
    seq=st.none(),
    values=st.dictionaries(
        st.sampled_from(["a", "flow [l/h]", "°C", 'say "x"']), st.floats(-1e38, 1e38), min_size=1
    ),
)


@given(st.lists(samples, min_size=1, max_size=20, unique_by=lambda s: s.time_s))
def test_what_is_on_the_tape_is_read_back(written: list[RawSample]) -> None:
    file = KeptFile()
    tape = Tape(lambda: file, ["a", "flow [l/h]", "°C", 'say "x"'])
    tape.add([("pump, 7", s) for s in written], now_s=0)
    tape.close()
    header, *lines = file.text.splitlines(keepends=True)
    layout = find_layout(header, lines, Columns(), where="tape")
    assert layout.names == tape.channels
    for row, s in zip(read_rows(lines, layout, where="tape"), written, strict=True):
        assert (row.time_s, row.stream) == (s.time_s, "pump, 7")
        back = dict(zip(layout.names, row.values, strict=True))
        assert {name: v for name, v in back.items() if v == v} == s.values


def test_channels_are_the_keys_of_the_first_second() -> None:
    file = KeptFile()
    tape = Tape(lambda: file, ())
    tape.add([("p", sample(0, x=1.0))], now_s=10.0)
    tape.add([("p", sample(1, y=2.0))], now_s=10.9)
    assert file.getvalue() == b""
    tape.add([("p", sample(2, x=3.0))], now_s=11.0)
    tape.add([("p", sample(3, z=4.0, x=5.0))], now_s=11.1)
    tape.close()
    assert tape.channels == ("x", "y")
    assert dict(tape.unknown) == {"z": 1}
    assert [line.split(",")[2:] for line in file.text.splitlines()] == [
        ["x", "y"],
        ["1.0", ""],
        ["", "2.0"],
        ["3.0", ""],
        ["5.0", ""],
    ]


def test_a_repeated_sample_is_written_once() -> None:
    tape = Tape(KeptFile, ["x"])
    tape.add([("p", sample(0)), ("q", sample(0)), ("p", sample(1)), ("p", sample(0))], now_s=0)
    assert (tape.samples, tape.repeated) == (3, 1)


@given(limit=st.integers(1, 2000))
def test_the_tape_never_grows_beyond_its_limit(limit: int) -> None:
    file = KeptFile()
    tape = Tape(lambda: file, ["x"], max_bytes=limit)
    tape.add([("p", sample(i)) for i in range(100)], now_s=0)
    tape.close()
    assert len(file.text) == tape.size_bytes <= limit
    assert tape.is_full
    assert file.text.endswith("\n") or not file.text


def test_a_value_beyond_float32_is_missing_and_counted() -> None:
    file = KeptFile()
    tape = Tape(lambda: file, ["x"])
    tape.add([("p", sample(0, x=1e39))], now_s=0)
    tape.close()
    assert file.text.endswith(",p,\n")
    assert tape.out_of_range == 1


def test_hostile_keys_become_no_channels() -> None:
    tape = Tape(KeptFile, ())
    keys = {"x": 1.0, "": 1.0, "a\nb": 1.0, " y": 1.0, "Stream": 1.0, "k" * 999: 1.0}
    tape.add([("p", RawSample(time_s=0, seq=None, values=keys))], now_s=0)
    tape.close()
    assert tape.channels == ("x",)


def test_live_samples_are_written_and_junk_is_counted(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "live.csv"
    with recording(path, mosquitto, max_samples=3) as results, publishing(mosquitto) as publish:
        publish({"time": START_S, "x": 1, "note": "text"})
        publish(b"\x00 not json", count=2)
        publish({"time": START_S, "x": 1})
        publish({"time": START_S, "x": 1}, stream="cmd")
        publish([{"time": START_S + 1, "x": None, "y": 5}, {"time": START_S + 1.5, "x": 0.1}], "q")
    assert rows_of(path) == [
        ["time", "stream", "x", "y"],
        ["2026-05-28T20:26:40.000000Z", "p", "1.0", ""],
        ["2026-05-28T20:26:41.000000Z", "q", "", "5.0"],
        ["2026-05-28T20:26:41.500000Z", "q", "0.1", ""],
    ]
    (done,) = results
    assert (done.samples, done.streams, done.repeated, done.ended_by) == (3, 2, 1, "samples")
    assert done.refused == {"not_json": 2, "bad_stream_name": 1, "not_a_number": 1}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_recording_keeps_what_it_had(
    mosquitto: Mosquitto, tmp_path: Path, how: signal.Signals
) -> None:
    path = tmp_path / "cut.csv"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, path, str(mosquitto.port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process, publishing(mosquitto) as publish:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for i in range(50):
            publish({"time": START_S + i, "x": i})
        until_s = time.monotonic() + WAIT_S
        while not path.exists() or len(rows_of(path)) < 51:
            assert time.monotonic() < until_s
            time.sleep(0.01)
        process.send_signal(how)
        rest, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, rest) == ((-9, "") if how == signal.SIGKILL else (0, "50\n"))
    assert [float(row[2]) for row in rows_of(path)[1:]] == list(range(50))


def test_it_goes_on_after_a_broker_restart(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "live.csv"
    with recording(path, mosquitto, max_samples=2, channels=["x"]):
        with publishing(mosquitto) as publish:
            publish({"time": START_S, "x": 1})
        until_s = time.monotonic() + WAIT_S
        while not path.exists():
            assert time.monotonic() < until_s
            time.sleep(0.01)
        mosquitto.restart()
        with publishing(mosquitto) as publish:
            while len(rows_of(path)) < 3 and time.monotonic() < until_s:
                publish({"time": START_S + 1, "x": 2})
                time.sleep(0.02)
    assert [row[2] for row in rows_of(path)] == ["x", "1.0", "2.0"]


def test_an_existing_file_is_kept_unless_told_and_until_samples_come(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    path = tmp_path / "old.csv"
    path.write_text("old")
    with pytest.raises(EdgernnError, match="exists already"):
        record(path, access_to(mosquitto))
    with pytest.raises(EdgernnError, match=r"nothing recorded from .*: no message came"):
        record(path, access_to(mosquitto), force=True, duration_s=0)
    assert path.read_text() == "old"
    again = recording(path, mosquitto, force=True, max_samples=1, channels=["x"])
    with again, publishing(mosquitto) as publish:
        publish({"time": START_S, "x": 1})
    assert len(rows_of(path)) == 2


def test_a_parquet_spool_of_an_interrupted_recording_is_not_overwritten(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    pytest.importorskip("polars", reason="the base install writes no Parquet")
    (tmp_path / "x.partial.csv").write_text("kept")
    with pytest.raises(EdgernnError, match=r"x\.partial\.csv: exists already"):
        record(tmp_path / "x.parquet", access_to(mosquitto))


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("x.txt", {}, "expected a name in .csv or .parquet"),
        ("no/x.csv", {}, "there is no folder"),
        ("x.csv", {"max_samples": 0}, "max_samples: expected 1 or more"),
        ("x.csv", {"pattern": "a/b"}, "expected {stream}"),
        ("x.csv", {"channels": ["stream"]}, "'stream' cannot be one"),
        ("x.csv", {}, "nothing listens there"),
    ],
)
def test_what_cannot_be_recorded_is_said_before_it_starts(
    tmp_path: Path, name: str, options: dict[str, Any], why: str
) -> None:
    access = Access(address=BrokerAddress("127.0.0.1", free_port()))
    with pytest.raises(EdgernnError) as caught:
        record(tmp_path / name, access, **options)
    assert why in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class FullDisk(KeptFile):
    """Takes `room` bytes, also a part of what it is given, then none."""

    room = 100

    def write(self, data: Any) -> int:
        taken = min(len(data), self.room - self.tell())
        if taken <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:taken])


@given(room=st.integers(1, 400))
def test_a_full_disk_leaves_whole_rows_and_the_right_count(room: int) -> None:
    file = FullDisk()
    file.room = room
    tape = Tape(lambda: file, ["x"])
    with pytest.raises(OSError, match="No space left"):
        for i in range(20):
            tape.add([("p", sample(i))], now_s=0)
    assert file.getvalue() == b"" or file.getvalue().endswith(b"\n")
    assert max(0, file.getvalue().count(b"\n") - 1) == tape.samples
    assert len(file.getvalue()) == tape.size_bytes


def test_a_recording_that_outgrows_the_disk_ends_in_one_sentence_and_keeps_whole_rows(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    path, largest = tmp_path / "full.csv", 3000  # the system refuses the rest, as a full disk does
    words = ("record", "-o", path, "--broker", mosquitto.address, "--channel", "x")
    process = subprocess.Popen(
        [sys.executable, "-m", "edgernn", *words],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process, publishing(mosquitto) as publish:
        while process.poll() is None and not (path.exists() and rows_of(path)[1:]):
            publish({"time": START_S, "x": 0})  # until it listens; written once
            time.sleep(0.05)
        i = 1
        while process.poll() is None:
            publish([{"time": START_S + i + k / 50, "x": k} for k in range(50)])
            i += 1
        said = process.communicate()[1]
    rows = rows_of(path)[1:]
    assert (process.returncode, said.count("\n"), said.startswith(f"edgernn: {path}: ")) == (
        5,
        1,
        1,
    )
    assert f"File too large; the {len(rows)} samples before are in it" in said
    assert path.read_text().endswith("\n")
    assert {len(row) for row in rows} == {3}
