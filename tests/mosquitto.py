"""A real Mosquitto on a loopback port of its own, for tests; ends only the process it started."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

START_TIMEOUT_S = 10.0


def find_mosquitto() -> str | None:
    """Debian puts it where the PATH of a normal user does not lead."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A port nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """With `users` (name → password) nobody else gets in; `options` are more lines of config;
    `is_persistent`: what is retained and queued is on disk within moments."""

    def __init__(
        self,
        folder: Path,
        *,
        users: dict[str, str] | None = None,
        options: tuple[str, ...] = (),
        is_persistent: bool = False,
    ) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        lines = [
            f"listener {self.port} 127.0.0.1",
            "persistence false"
            if not is_persistent
            else f"persistence true\n"
            f"persistence_location {folder}/\nautosave_interval 1\nautosave_on_changes true",
            "set_tcp_nodelay true",
            "max_queued_messages 100000",
            *options,
        ]
        if os.geteuid() == 0:  # else it drops to a user that cannot read the test's files
            lines.append("user root")
        if users:
            passwords = folder / "passwords"
            passwords.touch(mode=0o600)
            for name, password in users.items():
                subprocess.run(["mosquitto_passwd", "-b", passwords, name, password], check=True)
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        else:
            lines.append("allow_anonymous true")
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    @property
    def address(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it listens."""
        binary = find_mosquitto()
        assert binary is not None
        log = self._folder / "mosquitto.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [binary, "-c", self._folder / "mosquitto.conf"], stdout=output, stderr=output
            )
        until_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until_s and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        self.stop()
        raise RuntimeError(f"mosquitto did not start: {log.read_text()}")

    def stop(self) -> None:
        """Clients lose their connection; queued and retained messages are gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def kill(self) -> None:
        """As a power cut would: nothing is said to clients, nothing is written."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, connections stay open and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """On the same port."""
        self.stop()
        self.start()

    def __enter__(self) -> "Mosquitto":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
