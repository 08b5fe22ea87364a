"""docs/rnn-by-hand.md: its code computes what the layers compute."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgernn.nets.layers import GruLayer, LstmLayer, RnnLayer, Stateful

if TYPE_CHECKING:
    from edgernn.run import Run

PAGE = (Path(__file__).parents[1] / "docs" / "rnn-by-hand.md").read_text(encoding="utf-8")
INPUTS, HIDDEN = 4, 6
TOLERANCE = 1e-6
"""Of features below 1. Only the page's last block meets float32 at all."""

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def page(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All names that the page's code defines, run where runs/pump is a trained detector."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "runs").mkdir()
    (folder / "runs" / "pump").symlink_to(run_folder, target_is_directory=True)
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(block, names)
    return names


def weights(layer: Stateful) -> list[Floats]:
    """W, U, b, c."""
    return [parameter.detach().numpy() for parameter in layer.parameters()]


def compare(
    page: dict[str, Any], layer: Stateful, step: str, arguments: list[Floats], states: int
) -> None:
    x = np.random.default_rng(1).standard_normal((40, INPUTS))
    state = tuple(np.zeros(HIDDEN) for _ in range(states))
    features, end = page["run"](lambda x, *s: page[step](x, *s, *arguments), x, state)
    fresh = (torch.zeros(1, HIDDEN, dtype=torch.float64) for _ in range(states))
    with torch.no_grad():
        expected, last = layer(torch.from_numpy(x[:, None]), *fresh)
    np.testing.assert_allclose(features, expected[:, 0].numpy(), rtol=0, atol=TOLERANCE)
    for ours, theirs in zip(end, last, strict=True):
        np.testing.assert_allclose(ours, theirs[0].numpy(), rtol=0, atol=TOLERANCE)


def test_the_elman_step_is_ours(page: dict[str, Any]) -> None:
    layer = RnnLayer(INPUTS, HIDDEN).double()
    w, u, b, c = weights(layer)
    compare(page, layer, "elman_step", [w, u, b + c], states=1)


def test_the_gru_step_is_ours(page: dict[str, Any]) -> None:
    layer = GruLayer(INPUTS, HIDDEN).double()
    compare(page, layer, "gru_step", weights(layer), states=1)


def test_the_lstm_step_is_ours(page: dict[str, Any]) -> None:
    layer = LstmLayer(INPUTS, HIDDEN).double()
    w, u, b, c = weights(layer)
    compare(page, layer, "lstm_step", [w, u, b + c], states=2)


def test_the_weights_of_a_run_folder_give_the_trained_networks_features(
    page: dict[str, Any], trained_run: "Run"
) -> None:
    network = trained_run.detector.network
    x = torch.from_numpy(page["samples"]).float()
    with torch.no_grad():
        features, (h,) = network(x[:, None], torch.zeros(1, network.width))
    np.testing.assert_allclose(page["features"], features[:, 0].numpy(), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(page["state"][0], h[0].numpy(), rtol=0, atol=TOLERANCE)


def test_the_states_have_the_names_that_the_page_gives_them(trained_run: "Run") -> None:
    names = {state.name for state in trained_run.card.states}
    (said,) = re.findall(r"^\| GRU .* `(state\S*)` \|$", PAGE, re.MULTILINE)
    assert said in names
