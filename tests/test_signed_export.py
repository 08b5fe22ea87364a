"""`edgernn export --sign`: the device trusts what is written; a bad key is said at once."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgernn.errors import EdgernnError
from edgernn_device.engine import Engine
from edgernn_device.keys import generate
from edgernn_device.trust import Trust
from edgernn_export import cli, exporting
from edgernn_export.verify import Proof


def export(run_folder: Path, output: Path, key: Path) -> str:
    words = [str(run_folder), "-o", str(output), "--sign", str(key)]
    return CliRunner().invoke(cli.export, words, catch_exceptions=False).output


def test_a_signed_export_is_loaded_with_its_key_alone(
    run_folder: Path, artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven = artefact.read_bytes(), Proof(samples=6000, largest=(), failures=())
    monkeypatch.setattr(exporting, "build_artefact", lambda *_, **__: proven)
    private, _, key = generate(tmp_path / "hall")
    assert f"signed by key {key.id}\n" in export(run_folder, tmp_path / "pump.onnx", private)
    assert Engine.load(tmp_path / "pump.onnx", trust=Trust((key,))).signed_by == key.id


@pytest.mark.parametrize(("name", "said"), [("no.pem", "no such file"), ("hall.pub", "not a priv")])
def test_a_key_that_cannot_sign_is_said_before_anything_is_built(
    name: str, said: str, tmp_path: Path
) -> None:
    generate(tmp_path / "hall")
    with pytest.raises(EdgernnError, match=said):
        export(tmp_path / "no run at all", tmp_path / "pump.onnx", tmp_path / name)
    assert not (tmp_path / "pump.onnx").exists()
