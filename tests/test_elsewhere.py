"""An artefact in other bindings of ONNX Runtime, with nothing of edgernn around it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgernn.recording import read_recording
from edgernn_device.engine import Engine

ROOT = Path(__file__).parents[1]
JAVASCRIPT = ROOT / "examples" / "javascript"
PAGE = (ROOT / "docs" / "elsewhere.md").read_text(encoding="utf-8")
SAMPLES = 300
TOLERANCE = 2e-3
"""Of scores, which are steep where a window's variance is small; 2e-5 was measured."""

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def x(faulty_csv: Path) -> Floats:
    """(T, C) around the moment at which a leak begins, with values missing."""
    rows = read_recording(faulty_csv).tracks[0].x[800 : 800 + SAMPLES].copy()
    rows[20:22] = np.nan
    rows[100:120, 2] = np.nan
    return rows


@pytest.fixture(scope="module")
def expected(artefact: Path, x: Floats) -> Floats:
    engine = Engine.load(artefact)
    score, *_ = engine.run(np.array([engine.add_stream()]), np.ascontiguousarray(x[:, None]))
    return score[:, 0]


def check_same(scores: Floats, expected: Floats) -> None:
    assert np.nanmax(expected) > 6
    np.testing.assert_allclose(scores, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_onnxruntime_web_under_node_gives_the_same_scores(
    artefact: Path, x: Floats, expected: Floats, tmp_path: Path
) -> None:
    if shutil.which("node") is None:
        pytest.skip("no node on the PATH")
    if not (JAVASCRIPT / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("no onnxruntime-web: npm ci --prefix examples/javascript")
    samples = tmp_path / "samples.json"
    samples.write_text(json.dumps([[None if v != v else v for v in row] for row in x.tolist()]))
    done = subprocess.run(
        ["node", "score.mjs", artefact, samples],
        cwd=JAVASCRIPT,
        check=True,
        stdout=subprocess.PIPE,
        timeout=120,
    )
    check_same(np.array(json.loads(done.stdout), np.float32), expected)


def test_the_python_on_the_page_gives_the_same_scores(
    artefact: Path, x: Floats, expected: Floats
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    given = "\n".join(" ".join(map(repr, row)) for row in x.tolist())
    done = subprocess.run(
        [sys.executable, "-c", program, artefact],
        input=given,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    check_same(np.array(done.stdout.split(), np.float32), expected)


@pytest.mark.parametrize(
    ("language", "path"), [("js", JAVASCRIPT / "score.mjs"), ("c", ROOT / "examples/c/score.c")]
)
def test_the_page_shows_the_program_that_is_there(language: str, path: Path) -> None:
    assert f"```{language}\n{path.read_text(encoding='utf-8')}```" in PAGE
