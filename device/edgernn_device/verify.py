"""`edgernn verify`: the artefact's golden vectors on this machine's own CPU, in a child process."""

import hashlib
import platform
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import msgspec

from edgernn.errors import EdgernnError
from edgernn_device.folders import state_folder

PATIENCE_S = 120.0


class Verified(msgspec.Struct, frozen=True):
    """What came out on this machine."""

    samples: int
    """0: the artefact holds no golden vectors."""
    largest: float
    """Difference, relative above 1."""

    def __str__(self) -> str:
        if not self.samples:
            return "holds no golden samples: not proven on this CPU"
        return (
            f"says the same here of {self.samples} golden samples, largest difference "
            f"{self.largest:.1e}"
        )


def verify(model: bytes, *, where: str) -> Verified:
    """Run the golden vectors of an artefact in a process of its own.

    Raises EdgernnError if it says something else here, if it cannot be read, or if the process was
    ended: an ONNX Runtime built for another CPU ends with an illegal instruction.
    """
    # -P: no module of the folder that it happens to run in
    command = [sys.executable, "-P", "-m", "edgernn_device.verify", where]
    try:
        done = subprocess.run(
            command, input=model, capture_output=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise EdgernnError(f"{where}: not verified within {PATIENCE_S:g} s") from exc
    if done.returncode < 0:
        raise EdgernnError(
            f"{where}: onnxruntime {version('onnxruntime')} was ended by "
            f"{signal.Signals(-done.returncode).name} on this CPU ({platform.machine()}); install "
            "another version of it"
        )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise EdgernnError(lines[-1] if lines else f"{where}: not verified, and nothing was said")
    return msgspec.json.decode(done.stdout, type=Verified)


def verify_once(model: bytes, *, where: str) -> Verified | None:
    """`verify`, unless these bytes passed with this ONNX Runtime on this machine before: None."""
    digest = hashlib.sha256(model).hexdigest()
    name = f"{digest}-{version('onnxruntime')}-{platform.machine()}"
    mark = _mark(name)
    if mark is not None and _is_there(mark):
        return None
    found = verify(model, where=where)
    if mark is not None:
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError:
            pass  # a read-only system: it is verified at every start
    return found


def _mark(name: str) -> Path | None:
    """The file that says that it passed; None where nothing can be kept."""
    try:
        return state_folder() / "verified" / name
    except EdgernnError:
        return None


def _is_there(mark: Path) -> bool:
    try:
        return mark.exists()
    except OSError:  # its folder may not be looked into
        return False


def _verify_here(model: bytes, where: str) -> Verified:
    """In the child."""
    from edgernn_device.engine import Engine  # noqa: PLC0415 - what may end the process
    from edgernn_device.golden import largest_difference, read_golden  # noqa: PLC0415

    engine = Engine(model, where=where)
    golden = read_golden(engine, where=where)
    if golden is None:
        return Verified(0, 0.0)
    try:
        return Verified(golden.samples, largest_difference(engine, golden, where=where))
    except EdgernnError:
        raise
    except Exception as exc:  # ONNX Runtime raises a dozen unrelated types
        detail = " ".join(str(exc).split())[:200]
        raise EdgernnError(f"{where}: does not run here: {detail}") from exc


if __name__ == "__main__":
    try:
        found = _verify_here(sys.stdin.buffer.read(), sys.argv[1])
        sys.stdout.buffer.write(msgspec.json.encode(found))
    except EdgernnError as exc:
        sys.exit(str(exc))
