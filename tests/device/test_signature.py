"""Signatures: made, found, checked, and what no longer fits refused before ONNX Runtime sees it."""

import re
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from samples import read_samples
from wire_format import field

from edgernn.errors import EdgernnError, Exit
from edgernn_device.config import AgentConfig
from edgernn_device.engine import Engine
from edgernn_device.loading import load_engine
from edgernn_device.rehearsal import rehearse
from edgernn_device.reload import Loaded, Reload
from edgernn_device.signature import ENTRY_BYTES, PublicKey, Signature, split
from edgernn_device.trust import Trust

pytest.importorskip("cryptography", reason="the extra `sign` is not installed")

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgernn_device.keys import generate, public_key, read_private_key, sign

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = public_key(PRIVATE)
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
TRUST = Trust((KEY,))


@pytest.fixture(scope="module")
def unsigned(artefact: Path) -> bytes:
    return artefact.read_bytes()


@pytest.fixture(scope="module")
def signed(unsigned: bytes) -> bytes:
    return sign(unsigned, PRIVATE)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What ONNX Runtime is given to parse."""
    given: list[bytes] = []
    true_session = ort.InferenceSession

    def session(model: bytes, *rest: object, **more: object) -> object:
        given.append(model)
        return true_session(model, *rest, **more)

    monkeypatch.setattr(ort, "InferenceSession", session)
    return given


def refusal(content: bytes, trust: Trust = TRUST) -> str:
    with pytest.raises(EdgernnError) as caught:
        Engine(content, where="a.onnx", trust=trust)
    return str(caught.value)


def test_a_signed_artefact_is_loaded_and_names_its_key(signed: bytes, seen: list[bytes]) -> None:
    assert (Engine(signed, trust=TRUST).signed_by, set(seen)) == (KEY.id, {signed})


def test_one_of_several_trusted_keys_is_enough(signed: bytes) -> None:
    trust = Trust((public_key(OTHER), KEY))
    assert Engine(signed, trust=trust).signed_by == KEY.id


def test_a_signature_is_139_bytes_behind_the_artefact(unsigned: bytes, signed: bytes) -> None:
    assert (len(signed) - len(unsigned), ENTRY_BYTES) == (139, 139)
    assert signed.startswith(unsigned)


def test_a_signed_artefact_runs_in_bare_onnx_runtime_as_the_unsigned_does(
    unsigned: bytes, signed: bytes, faulty_csv: Path
) -> None:
    _, samples = read_samples(faulty_csv)
    x = samples[850:1000, None]  # (T, 1, C)
    scores = []
    for content in (unsigned, signed):
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        feeds = {"x": x} | {
            i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in session.get_inputs()[1:]
        }
        scores.append(session.run(["score"], feeds)[0])
    assert np.ptp(scores[0]) > 1
    assert np.array_equal(*scores)


def test_an_unsigned_artefact_is_refused(unsigned: bytes, seen: list[bytes]) -> None:
    assert refusal(unsigned) == (
        "a.onnx: not signed as trusted keys ask for, or cut off; see `edgernn sign`"
    )
    assert seen == []


def test_an_otherwise_signed_artefact_is_refused(unsigned: bytes, seen: list[bytes]) -> None:
    assert refusal(sign(unsigned, OTHER)) == (
        f"a.onnx: signed by key {public_key(OTHER).id}, which is not trusted; trusted: {KEY.id}"
    )
    assert seen == []


CHANGED = f"a.onnx: changed since it was signed: the signature of key {KEY.id} does not fit"


def test_another_keys_signature_under_a_trusted_name_is_refused(
    unsigned: bytes, seen: list[bytes]
) -> None:
    _, found = split(sign(unsigned, OTHER))
    assert found is not None
    assert refusal(unsigned + Signature(KEY.id, found.content).entry()) == CHANGED
    assert seen == []


def test_a_signature_of_other_bytes_is_refused(unsigned: bytes, seen: list[bytes]) -> None:
    _, found = split(sign(unsigned + field(6, "another"), PRIVATE))
    assert found is not None
    assert refusal(unsigned + found.entry()) == CHANGED
    assert seen == []


def test_a_signature_made_for_another_purpose_is_refused(
    unsigned: bytes, seen: list[bytes]
) -> None:
    bare = Signature(KEY.id, PRIVATE.sign(unsigned))
    assert refusal(unsigned + bare.entry()) == CHANGED
    assert seen == []


REGIONS = ("header", "graph and weights", "card", "signature")


def region(name: str, content: bytes) -> range:
    """Where in the file that is; of what is long, every seventh byte."""
    card, end = content.index(b'{"version":'), len(content)
    return {
        "header": range(64),
        "graph and weights": range(64, card, 7),
        "card": range(card, end - ENTRY_BYTES, 7),
        "signature": range(end - ENTRY_BYTES, end),
    }[name]


@pytest.mark.parametrize("name", REGIONS)
def test_a_bit_flipped_in_any_region_is_refused(
    name: str, signed: bytes, seen: list[bytes]
) -> None:
    for place in region(name, signed):
        changed = bytearray(signed)
        changed[place] ^= 1 << place % 8
        said = refusal(bytes(changed))
        assert said == CHANGED or name == "signature", said
    assert seen == []


@pytest.mark.parametrize("more", [b"\x00", field(6, "more"), field(7, b"")])
def test_anything_behind_the_signature_is_refused(
    more: bytes, signed: bytes, seen: list[bytes]
) -> None:
    assert "not signed" in refusal(signed + more)
    assert seen == []


def test_a_signed_file_truncated_anywhere_is_refused(signed: bytes, seen: list[bytes]) -> None:
    cuts = [0, 1, 100, *range(101, len(signed), 53), *range(len(signed) - 150, len(signed))]
    assert {refusal(signed[:cut])[:18] for cut in cuts} == {"a.onnx: not signed"}
    assert seen == []


def test_a_file_too_large_is_refused_before_its_signature_is_looked_at(
    signed: bytes, seen: list[bytes]
) -> None:
    assert "larger than 100 bytes" in refusal(signed, Trust((KEY,), max_bytes=100))
    assert seen == []


def test_a_trusted_signature_is_no_leave_to_bring_operators_from_elsewhere(
    unsigned: bytes, seen: list[bytes]
) -> None:
    evil = unsigned + field(7, field(1, field(4, "Evil") + field(7, "com.evil")))
    assert "operator Evil of domain 'com.evil'" in refusal(sign(evil, PRIVATE))
    assert seen == []


def test_a_signature_that_may_be_written_in_two_ways_is_refused(
    signed: bytes, seen: list[bytes]
) -> None:
    """The last character of 64 bytes in base64 has four bits that decode to nothing."""
    assert signed.endswith(b"==")
    twin = signed[:-3] + bytes([signed[-3] + 1]) + b"=="
    assert "not signed" in refusal(twin)
    assert seen == []


def test_signing_again_replaces_the_signature(unsigned: bytes, signed: bytes) -> None:
    again = sign(sign(unsigned, OTHER), PRIVATE)
    assert again == signed
    assert split(again)[0] == unsigned


def test_without_trusted_keys_a_signature_is_not_looked_at(unsigned: bytes) -> None:
    assert Engine(sign(unsigned, OTHER)).signed_by == public_key(OTHER).id
    assert Engine(unsigned).signed_by == ""


def test_a_private_key_is_for_its_owner_alone_and_keys_are_never_overwritten(
    tmp_path: Path,
) -> None:
    private, public, key = generate(tmp_path / "hall.3")
    assert (private.name, public.name) == ("hall.3.pem", "hall.3.pub")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(EdgernnError, match=r"hall\.3\.pem: is there already; keys are never"):
        generate(tmp_path / "hall.3")
    private.unlink()
    with pytest.raises(EdgernnError, match=r"hall\.3\.pub: is there already"):
        generate(tmp_path / "hall.3")
    assert (public.read_bytes(), private.exists()) == (before[1], False)
    assert PublicKey.parse(public.read_text().split()[0], where="x") == key


def test_two_keys_are_two(tmp_path: Path) -> None:
    assert generate(tmp_path / "a")[2] != generate(tmp_path / "b")[2]


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_keys_need_a_name(name: str) -> None:
    with pytest.raises(EdgernnError) as caught:
        generate(Path(name))
    assert str(caught.value) == f"{name}: expected a name for the keys, such as keys/plant"


def test_a_key_read_back_signs_as_the_one_that_was_made(tmp_path: Path, unsigned: bytes) -> None:
    private, _, key = generate(tmp_path / "a")
    assert Engine(sign(unsigned, read_private_key(private)), trust=Trust((key,))).signed_by


def test_what_is_no_private_key_of_this_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    _, public, _ = generate(tmp_path / "a")
    with pytest.raises(EdgernnError, match=r"a\.pub: not a private key; expected a \.pem of"):
        read_private_key(public)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    (tmp_path / "x.pem").write_bytes(X25519PrivateKey.generate().private_bytes(pem, pkcs8, plain))
    with pytest.raises(EdgernnError, match=r"x\.pem: expected an Ed25519 key, got X25519"):
        read_private_key(tmp_path / "x.pem")
    locked = serialization.BestAvailableEncryption(b"secret")
    (tmp_path / "locked.pem").write_bytes(PRIVATE.private_bytes(pem, pkcs8, locked))
    with pytest.raises(EdgernnError, match=r"locked\.pem: encrypted; expected a private key with"):
        read_private_key(tmp_path / "locked.pem")


def edgernn(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "edgernn", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_commands_make_a_key_sign_and_check(
    tmp_path: Path, unsigned: bytes, signed: bytes
) -> None:
    made = edgernn("keygen", tmp_path / "hall")
    assert made.returncode == 0, made.stderr
    key = PublicKey.parse((tmp_path / "hall.pub").read_text().split()[0], where="x")
    assert made.stdout.splitlines()[-1] == f'trusted_keys = ["{key}"]'
    artefact, copy = tmp_path / "a.onnx", tmp_path / "b.onnx"
    artefact.write_bytes(unsigned)
    copied = edgernn("sign", artefact, "--key", tmp_path / "hall.pem", "-o", copy)
    assert (copied.returncode, artefact.read_bytes()) == (0, unsigned)
    done = edgernn("sign", artefact, "--key", tmp_path / "hall.pem")
    assert done.stdout == f"{artefact}: signed by key {key.id}\n"
    assert artefact.read_bytes() == copy.read_bytes()
    shown = edgernn("inspect", artefact, "--trusted-key", tmp_path / "hall.pub").stdout
    assert f"  signature  of key {key.id}, valid\n" in shown
    for command in ("inspect", "verify"):
        refused = edgernn(command, artefact, "--trusted-key", KEY)
        assert (refused.returncode, refused.stdout) == (Exit.ARTEFACT, "")
        assert refused.stderr.count("\n") == 1
        assert f"signed by key {key.id}, which is not trusted" in refused.stderr


def test_at_a_reload_what_no_trusted_key_signed_leaves_the_old_one_running(
    tmp_path: Path, unsigned: bytes, signed: bytes, seen: list[bytes]
) -> None:
    path = tmp_path / "a.onnx"
    config = AgentConfig(model="a.onnx", trusted_keys=(str(KEY),))

    def load() -> Loaded:
        return Loaded(config, load_engine(config, base=tmp_path, where="agent.toml"))

    path.write_bytes(signed)
    reload = Reload(load, rehearse=partial(rehearse, base=tmp_path))
    running, opened = reload.loaded, len(seen)
    altered = bytearray(signed)
    altered[len(altered) // 2] ^= 1
    for content in (unsigned, sign(unsigned, OTHER), bytes(altered)):
        path.write_bytes(content)
        reload.ask()
        assert not reload.is_due()
        assert reload.loaded is running
    assert len(seen) == opened  # nothing of them was parsed
    path.write_bytes(sign(unsigned + field(2, "another"), PRIVATE))
    reload.ask()
    assert reload.is_due()
    assert reload.loaded.engine.hash != running.engine.hash


def test_inspect_names_the_key_of_a_signature_that_it_did_not_check(
    tmp_path: Path, unsigned: bytes, signed: bytes
) -> None:
    for content, said in (
        (unsigned, "none"),
        (signed, f"of key {KEY.id}, not checked; see --trusted-key"),
    ):
        (tmp_path / "a.onnx").write_bytes(content)
        assert f"  signature  {said}\n" in edgernn("inspect", tmp_path / "a.onnx").stdout


def test_the_agent_refuses_at_its_start_what_no_trusted_key_signed(
    tmp_path: Path, unsigned: bytes, signed: bytes
) -> None:
    (tmp_path / "a.onnx").write_bytes(unsigned)
    (tmp_path / "hall.pub").write_text(f"{KEY} hall\n")
    (tmp_path / "agent.toml").write_text('model = "a.onnx"\ntrusted_keys = ["hall.pub"]\n')
    done = edgernn("agent", tmp_path / "agent.toml")
    assert (done.returncode, done.stdout) == (Exit.ARTEFACT, "")
    assert done.stderr == (
        f"edgernn: {tmp_path / 'a.onnx'}: not signed as trusted keys ask for, or cut off; see "
        "`edgernn sign`\n"
    )


def test_the_agent_takes_a_trusted_artefact_and_goes_on_to_its_broker(
    tmp_path: Path, signed: bytes
) -> None:
    (tmp_path / "a.onnx").write_bytes(signed)
    words = ("--trusted-key", KEY, "--broker", "mqtt://127.0.0.1:1")
    done = edgernn("agent", tmp_path / "a.onnx", *words)
    assert f"a.onnx: signed by key {KEY.id}, which is trusted" in done.stderr
    assert "127.0.0.1:1: nothing listens there" in done.stderr
    assert done.returncode == Exit.BROKER


def test_the_agents_file_limits_the_size(tmp_path: Path, unsigned: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(unsigned)
    (tmp_path / "agent.toml").write_text('model = "a.onnx"\nmax_model_mb = 0.001\n')
    done = edgernn("agent", tmp_path / "agent.toml")
    assert done.stderr.endswith("a.onnx: larger than 1,000 bytes, which is the limit\n")
    assert done.returncode == Exit.ARTEFACT


def test_what_is_no_artefact_is_not_signed(tmp_path: Path) -> None:
    generate(tmp_path / "hall")
    (tmp_path / "a.onnx").write_bytes(b"hello")
    done = edgernn("sign", tmp_path / "a.onnx", "--key", tmp_path / "hall.pem")
    assert (done.returncode, (tmp_path / "a.onnx").read_bytes()) == (2, b"hello")
    assert "a.onnx: not a readable ONNX file" in done.stderr


PAGE = (Path(__file__).parents[2] / "docs" / "signing.md").read_text()


def test_the_commands_and_the_program_of_the_page_sign_and_check(
    tmp_path: Path, unsigned: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pump.onnx").write_bytes(unsigned)
    lines = re.findall(r"^    edgernn (?!export)([^#\n]+)", PAGE, re.MULTILINE)
    done = [edgernn(*line.split()) for line in lines]
    assert [d.returncode for d in done] == [0, 0, 0], done
    assert ", valid\n" in done[-1].stdout
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(program, {})
    changed = Path("pump.onnx").read_bytes().replace(b"pressure", b"Pressure")
    Path("pump.onnx").write_bytes(changed)
    with pytest.raises(InvalidSignature):
        exec(program, {})
