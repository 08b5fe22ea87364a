"""TOML into structs: what is wrong is said with its file and the path of its key."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgernn.errors import EdgernnError
from edgernn.settings import read_settings, read_text, to_settings, write_atomically


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: int = 1883


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int

    def __post_init__(self) -> None:
        if self.size > 9:
            raise ValueError(f"size: expected 0–9, got {self.size}")


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    broker: Broker = Broker()
    groups: tuple[Group, ...] = ()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.toml"


def refusal(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(EdgernnError) as caught:
        read_settings(file, Sample)
    return str(caught.value)


def test_keys_that_are_not_there_have_their_defaults(file: Path) -> None:
    file.write_text('name = "Ü"\n[[groups]]\nsize = 2\n', encoding="utf-8")
    assert read_settings(file, Sample) == Sample(name="Ü", groups=(Group(2),))


def test_an_unknown_key_is_refused_with_its_path(file: Path) -> None:
    found = refusal(file, 'name = "a"\n[broker]\nprot = 1\n')
    assert found == f"{file}: broker: unknown key `prot`; expected port"


def test_a_wrong_type_is_refused_with_its_path(file: Path) -> None:
    found = refusal(file, 'name = "a"\n[broker]\nport = "1883"\n')
    assert found == f"{file}: broker.port: expected a whole number, got text"


def test_the_path_counts_the_members_of_a_list(file: Path) -> None:
    found = refusal(file, 'name = "a"\n[[groups]]\nsize = 1\n[[groups]]\nsize = 1.5\n')
    assert found.startswith(f"{file}: groups[1].size: expected a whole number")


def test_a_limit_of_the_struct_is_refused_with_its_path(file: Path) -> None:
    found = refusal(file, 'name = "a"\n[[groups]]\nsize = 10\n')
    assert found == f"{file}: groups[0].size: expected 0–9, got 10"


def test_a_missing_key_is_named(file: Path) -> None:
    assert refusal(file, "") == f"{file}: Object missing required field `name`"


def test_broken_toml_is_refused_with_its_line(file: Path) -> None:
    found = refusal(file, 'name = "a"\nport 1883\n')
    assert found.startswith(f"{file}: not valid TOML: ")
    assert "line 2" in found


def test_a_missing_file_is_a_sentence(file: Path) -> None:
    with pytest.raises(EdgernnError) as caught:
        read_settings(file, Sample)
    assert str(caught.value) == f"{file}: no such file"


def test_a_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EdgernnError) as caught:
        read_settings(tmp_path, Sample)
    assert str(caught.value) == f"{tmp_path}: is a folder, expected a file"


def test_bytes_that_are_not_utf8_are_counted_from_0(file: Path) -> None:
    file.write_bytes(b'name = "\xff"')
    with pytest.raises(EdgernnError, match=r"not a text file \(byte 8 is not UTF-8\)"):
        read_text(file)


@pytest.mark.parametrize("data", [{}, {"name": 1}, {"name": "a", "x": 1}, {"name": None}])
def test_data_that_does_not_fit_names_where_it_is_from(data: dict[str, Any]) -> None:
    with pytest.raises(EdgernnError, match=r"^--broker: "):
        to_settings(data, Sample, where="--broker")


@pytest.mark.parametrize("name", ["", ".", "sub"])
def test_a_folder_is_not_written_to_as_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgernnError, match=r"^(\.|sub): is a folder, expected a file name$"):
        write_atomically(Path(name), b"content")
    assert list(tmp_path.rglob("*")) == [tmp_path / "sub"]
