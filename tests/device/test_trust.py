"""What is refused on its bytes alone, before ONNX Runtime is called at all."""

import os
import re
import shutil
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_format import LOCATION, field, in_graph, node, tensor, varint

from edgernn.errors import EdgernnError, MissingExtraError
from edgernn_device.engine import Engine
from edgernn_device.signature import PublicKey
from edgernn_device.trust import LARGEST_BYTES, Trust, admit, read_artefact
from edgernn_device.wire import DEEPEST, MOST_FIELDS, WireError, walk


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime must not be called: if it is, the test fails."""

    def called(*_: object, **__: object) -> None:
        pytest.fail("ONNX Runtime has seen the file")

    monkeypatch.setattr(ort, "InferenceSession", called)


@pytest.fixture
def content(artefact: Path) -> bytes:
    return artefact.read_bytes()


def refusal(content: bytes, trust: Trust = Trust()) -> str:  # noqa: B008 -- frozen
    with pytest.raises(EdgernnError) as caught:
        Engine(content, where="a.onnx", trust=trust)
    return str(caught.value)


def test_the_spy_would_notice_a_file_that_reaches_onnx_runtime(
    content: bytes, unseen: None
) -> None:
    with pytest.raises(pytest.fail.Exception, match="ONNX Runtime has seen the file"):
        Engine(content)


def test_a_file_truncated_anywhere_is_refused(content: bytes, unseen: None) -> None:
    cuts = [*range(200), *range(200, len(content), 97), *range(len(content) - 100, len(content))]
    said = {refusal(content[:cut]) for cut in cuts}
    allowed = ("a.onnx: not a readable ONNX file: ", "a.onnx: an ONNX file without an edgernn card")
    assert [sentence for sentence in said if not sentence.startswith(allowed)] == []


def test_a_truncated_file_is_said_to_be_that_and_where(content: bytes, unseen: None) -> None:
    assert refusal(content[:-9]).startswith("a.onnx: not a readable ONNX file: truncated: ")
    assert refusal(content[:-9]).endswith(" are there")


def test_a_file_over_the_limit_is_refused(artefact: Path, content: bytes, unseen: None) -> None:
    trust = Trust(max_bytes=len(content) - 1)
    sentence = f"larger than {len(content) - 1:,} bytes, which is the limit"
    assert refusal(content, trust) == f"a.onnx: {sentence}"
    with pytest.raises(EdgernnError, match=f"pump.onnx: {sentence}"):
        Engine.load(artefact, trust=trust)


def test_a_file_just_at_the_limit_is_taken(content: bytes) -> None:
    assert Engine(content, trust=Trust(max_bytes=len(content))).size_bytes == len(content)


def test_no_more_than_the_limit_is_read_of_a_large_file(tmp_path: Path, unseen: None) -> None:
    (tmp_path / "a.onnx").touch()
    os.truncate(tmp_path / "a.onnx", 10**13)  # ten terabytes of nothing
    with pytest.raises(EdgernnError, match=r"a\.onnx: larger than 64,000,000 bytes, which is the"):
        Engine.load(tmp_path / "a.onnx", trust=Trust(max_bytes=64_000_000))


def test_a_pipe_and_a_device_are_no_files(tmp_path: Path, unseen: None) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "pipe.onnx", Path("/dev/zero")):
        with pytest.raises(EdgernnError, match=f"^{path}: is no regular file"):
            read_artefact(path)


@pytest.mark.parametrize(
    "more",
    {
        "initializer": in_graph(field(5, tensor(LOCATION))),
        "location alone": in_graph(field(5, tensor(field(14, 1)))),
        "location in more bits than an enum has": in_graph(field(5, tensor(field(14, 2**32 + 1)))),
        "sparse values": in_graph(field(15, field(1, tensor(LOCATION)))),
        "sparse indices": in_graph(field(15, field(2, tensor(LOCATION)))),
        "constant": in_graph(field(1, node("Constant", "", field(5, tensor(LOCATION))))),
        "list": in_graph(field(1, node("Constant", "", field(10, tensor(LOCATION))))),
        "sparse constant": in_graph(
            field(1, node("Constant", "", field(22, field(1, tensor(LOCATION)))))
        ),
        "branch": in_graph(field(1, node("If", "", field(6, field(5, tensor(LOCATION)))))),
        "branches": in_graph(field(1, node("If", "", field(11, field(5, tensor(LOCATION)))))),
        "function": field(25, field(7, node("Constant", "", field(5, tensor(LOCATION))))),
        "default": field(25, field(11, field(5, tensor(LOCATION)))),
        "training": field(20, field(1, field(5, tensor(LOCATION)))),
    }.values(),
)
def test_a_tensor_in_another_file_is_refused_wherever_it_is_mentioned(
    more: bytes, content: bytes, unseen: None
) -> None:
    assert refusal(content + more) == (
        "a.onnx: tensor 'w' lies in another file; expected all weights inside the artefact"
    )


@pytest.mark.parametrize(
    "more",
    {
        "graph": in_graph(field(1, node("Evil", "com.evil"))),
        "branch": in_graph(field(1, node("If", "", field(6, field(1, node("Evil", "com.evil")))))),
        "function": field(25, field(7, node("Evil", "com.evil"))),
        "said twice": in_graph(
            field(1, field(7, "") + node("Evil", "com.evil") + varint(7 << 3 | 5) + bytes(4))
        ),
    }.values(),
)
def test_an_operator_from_elsewhere_is_refused_wherever_it_is_called(
    more: bytes, content: bytes, unseen: None
) -> None:
    assert refusal(content + more) == (
        "a.onnx: node 'n': operator Evil of domain 'com.evil'; expected only operators that ONNX "
        "Runtime brings along"
    )


@pytest.mark.parametrize("domain", ["", "ai.onnx", "com.microsoft"])
def test_an_operator_that_onnx_runtime_has_is_let_through(content: bytes, domain: str) -> None:
    assert admit(content + in_graph(field(1, node("Any", domain))), where="a.onnx").name == "pump"


def test_a_file_of_onnx_runtimes_other_format_is_refused(content: bytes, unseen: None) -> None:
    disguised = field(2, "abORTM" + 10 * "x") + content
    assert disguised[4:8] == b"ORTM"
    assert refusal(disguised) == (
        "a.onnx: an ORT-format file, expected an .onnx of `edgernn export`"
    )


def test_two_cards_are_refused(content: bytes, unseen: None) -> None:
    second = field(14, field(1, "edgernn") + field(2, "{}"))
    assert refusal(content + second) == (
        "a.onnx: an ONNX file with 2 edgernn cards; it was not written by `edgernn export`"
    )


def test_a_card_of_a_newer_version_is_refused_before_it_is_parsed_by_onnx_runtime(
    content: bytes, unseen: None
) -> None:
    start = content.index(b'{"version":') + len(b'{"version":')
    newer = content[:start] + b"9" + content[start + 1 :]
    assert refusal(newer).endswith("upgrade edgernn on this device")


def test_a_card_that_is_no_text_is_refused(content: bytes, unseen: None) -> None:
    start = content.index(b'{"version":')
    assert refusal(content[:start] + b"\xff" + content[start + 1 :]).startswith(
        "a.onnx: damaged card: "
    )


def test_messages_nested_too_deep_are_refused(content: bytes, unseen: None) -> None:
    inner = b""
    for _ in range(DEEPEST):
        inner = field(1, node("If", "", field(6, inner)))
    assert f"nested deeper than {DEEPEST}" in refusal(content + field(7, inner))


@pytest.mark.parametrize("field_of_two_bytes", [b"\x72\x00", b"\x08\x01"])
def test_a_file_of_countless_fields_is_refused_before_it_fills_the_memory(
    field_of_two_bytes: bytes, content: bytes, unseen: None
) -> None:
    said = refusal(content + MOST_FIELDS * field_of_two_bytes)
    assert "a.onnx: not a readable ONNX file: more than 200,000 fields before byte " in said


@pytest.mark.parametrize(
    "bad",
    {
        "field number 0": b"\x02\x00",
        "a group": varint(99 << 3 | 3),
        "a tag of more than 32 bits, which parsers cut": varint((1 << 32) + (7 << 3 | 2)) + b"\x00",
        "a length in six bytes": b"\x3a" + b"\x80" * 5 + b"\x00",
        "a number in eleven bytes": b"\x08" + b"\x80" * 10 + b"\x00",
    }.values(),
)
def test_what_parsers_read_in_different_ways_is_refused(
    bad: bytes, content: bytes, unseen: None
) -> None:
    found = re.search(r"no protobuf field at byte ([0-9,]+)$", refusal(content + bad))
    assert found is not None
    assert 0 <= int(found[1].replace(",", "")) - len(content) <= len(bad)


@given(st.binary(max_size=200))
def test_any_bytes_are_walked_or_refused(content: bytes) -> None:
    try:
        assert list(walk(content))[-1].kind == "model"
    except WireError as exc:
        assert "byte" in str(exc)


@settings(max_examples=200)
@given(data=st.data())
def test_an_artefact_with_any_bytes_changed_is_walked_or_refused(
    artefact: Path, data: st.DataObject
) -> None:
    content = bytearray(artefact.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert admit(bytes(content), where="a.onnx").channels
    except EdgernnError as exc:
        assert str(exc).startswith("a.onnx: ")


def test_with_a_trusted_key_nothing_is_loaded_where_cryptography_is_absent(
    content: bytes, unseen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "edgernn_device.keys", raising=False)
    trust = Trust((PublicKey(bytes(32)),))
    with pytest.raises(MissingExtraError) as caught:
        Engine(content, where="a.onnx", trust=trust)
    assert str(caught.value) == (
        "a.onnx: not loaded: trusted keys need the package cryptography, which this installation "
        "has not: pip install 'edgernn[sign]'"
    )


KEY = PublicKey(bytes(range(32)))


def parse(folder: Path, *keys: str) -> Trust:
    return Trust.parse(keys, base=folder, where="agent.toml: trusted_keys")


def test_keys_are_taken_inline_and_from_files_beside_the_agents_file(tmp_path: Path) -> None:
    (tmp_path / "hall.pub").write_text(f"# hall 3\n{KEY} pump\n\n{PublicKey(bytes(32))}\n")
    found = parse(tmp_path, str(KEY), "hall.pub")
    assert found == Trust((KEY, PublicKey(bytes(32))), LARGEST_BYTES)


@pytest.mark.parametrize(
    "text", ["ed25519:", "ed25519:AAAA", "ed25519:" + "!" * 44, "ed25519:" + "A" * 88, "ed25519:é"]
)
def test_a_key_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(EdgernnError) as caught:
        parse(tmp_path, text)
    assert str(caught.value) == (
        "agent.toml: trusted_keys: expected a public key, ed25519: and 44 characters, "
        f"got {text[:60]!r}"
    )


def test_a_private_key_given_as_trusted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ==\n")
    with pytest.raises(EdgernnError, match=r"a\.pem: expected a public key, .* got '-----BEGIN'$"):
        parse(tmp_path, "a.pem")


def test_a_file_without_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.pub").write_text("# to come\n")
    with pytest.raises(EdgernnError, match=r"none\.pub: no public key in it$"):
        parse(tmp_path, "none.pub")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgernnError, match=r"no\.pub: no such file$"):
        parse(tmp_path, "no.pub")


def test_an_artefact_is_a_file(tmp_path: Path, artefact: Path) -> None:
    shutil.copy(artefact, tmp_path / "a.onnx")
    assert read_artefact(tmp_path / "a.onnx") == artefact.read_bytes()
