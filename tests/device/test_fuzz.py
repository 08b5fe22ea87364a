"""Nothing that others send makes the agent stumble: a short run; `make fuzz` is the long one."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).parents[2] / "fuzz"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", FUZZ / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CORPUS, TARGETS = load("corpus"), load("targets").TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_before_still_passes(name: str) -> None:
    inputs = CORPUS.read_corpus(name)
    assert inputs
    for one in inputs:
        TARGETS[name](one)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_pass(name: str) -> None:
    target: Callable[[bytes], None] = TARGETS[name]

    @settings(max_examples=20 if name == "store" else 200)
    @given(st.binary(max_size=300))
    @example(b"")
    def passes(data: bytes) -> None:
        target(data)

    passes()


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_before_passes_with_some_bytes_changed(name: str) -> None:
    target: Callable[[bytes], None] = TARGETS[name]
    kept = CORPUS.read_corpus(name)

    @settings(max_examples=20 if name == "store" else 200)
    @given(st.data())
    def passes(data: st.DataObject) -> None:
        content = bytearray(data.draw(st.sampled_from(kept)))
        for _ in range(data.draw(st.integers(0, 4))):
            at = data.draw(st.integers(0, len(content)))
            content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        target(bytes(content))

    passes()
