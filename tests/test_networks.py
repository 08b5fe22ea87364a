"""How layers are put together, as `[network]` asks, and what does not fit the channels."""

from pathlib import Path

import pytest
import torch

from edgernn.errors import EdgernnError
from edgernn.nets import NetworkConfig
from edgernn.nets.heads import HEADS
from edgernn.nets.networks import NETWORKS, Branches, build_network

CHANNELS = ("flow", "heat", "speed")
STREAMS, SAMPLES = 2, 12


def features(config: NetworkConfig, x: torch.Tensor) -> torch.Tensor:
    network = build_network(CHANNELS, config, seed=0).eval()
    state = [torch.zeros(x.shape[1], *shape) for shape in network.state_shapes.values()]
    with torch.no_grad():
        y, _ = network(x, *state)
    assert isinstance(y, torch.Tensor)
    assert y.shape == (len(x), x.shape[1], network.width)
    return y


@pytest.fixture
def x() -> torch.Tensor:
    """(T, N, 2C)"""
    return torch.randn(
        SAMPLES, STREAMS, 2 * len(CHANNELS), generator=torch.Generator().manual_seed(1)
    )


def test_a_branch_sees_its_own_channels_only(x: torch.Tensor) -> None:
    config = NetworkConfig(hidden=4, branches=(("speed",), ("flow", "heat")))
    other = x.clone()
    other[..., [0, 3]] += 1  # flow, and whether it was observed
    a, b = features(config, x), features(config, other)
    assert torch.equal(a[..., :4], b[..., :4])
    assert not torch.equal(a[..., 4:], b[..., 4:])


def test_branches_lie_side_by_side() -> None:
    config = NetworkConfig(hidden=4, layers=2, branches=(("speed",), ("flow", "heat")))
    network = build_network(CHANNELS, config, seed=0)
    assert isinstance(network, Branches)
    assert network.width == 8
    assert list(network.state_shapes) == [
        "branch.0.layer.0.h",
        "branch.0.layer.1.h",
        "branch.1.layer.0.h",
        "branch.1.layer.1.h",
    ]


@pytest.mark.parametrize(
    ("branches", "sentence"),
    [
        (
            (("a",), ("b",), ("c",), ("d",)),
            "network.branches: 4 branches for 3 channels (flow, heat, speed); expected at most one "
            "each",
        ),
        (
            (("flow", "heet"), ("speed",)),
            "network.branches: heet is no channel; there are flow, heat, speed",
        ),
        ((("flow",), ("speed",)), "network.branches: heat is in no branch"),
    ],
)
def test_branches_that_do_not_fit_the_channels_are_refused(
    branches: tuple[tuple[str, ...], ...], sentence: str
) -> None:
    with pytest.raises(EdgernnError) as caught:
        build_network(CHANNELS, NetworkConfig(branches=branches), seed=0)
    assert str(caught.value) == sentence


def test_a_residual_layer_adds_to_what_it_is_given(x: torch.Tensor) -> None:
    plain = NetworkConfig(hidden=4, layers=2)
    below, above = NetworkConfig(hidden=4), NetworkConfig(hidden=4, layers=2, residual=True)
    torch.testing.assert_close(
        features(above, x), features(plain, x) + features(below, x), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("attention", [0, 3])
def test_a_layer_that_adds_to_its_input_does_not_do_so_twice(
    x: torch.Tensor, attention: int
) -> None:
    plain = NetworkConfig(hidden=4, attention=attention)
    same = NetworkConfig(hidden=4, attention=attention, residual=True)
    assert torch.equal(features(plain, x), features(same, x))


def test_dropout_acts_between_layers_and_only_while_training(x: torch.Tensor) -> None:
    network = build_network(CHANNELS, NetworkConfig(layers=2, dropout=0.5), seed=0)
    state = [torch.zeros(STREAMS, *shape) for shape in network.state_shapes.values()]
    assert not torch.equal(network(x, *state)[0], network(x, *state)[0])
    network.eval()
    assert torch.equal(network(x, *state)[0], network(x, *state)[0])


def test_looking_ahead_leaves_out_the_very_sample_that_is_judged(x: torch.Tensor) -> None:
    ahead = 3
    config = NetworkConfig(kind="gru", hidden=4, direction="bidirectional", look_ahead=ahead)
    other = x.clone()
    other[5] += 1
    changed = (features(config, x) != features(config, other)).any(-1).any(-1)
    # 5 is judged at 8; at 6 and 7 it is seen as what comes after, from 9 on as what was before
    assert changed.tolist() == [t in (5, 6, 7) or t > 8 for t in range(SAMPLES)]


@pytest.mark.parametrize("name", [*NETWORKS, *HEADS])
def test_the_page_has_a_row_of_figures_for_every_kind_of_network_and_head(name: str) -> None:
    page = Path(__file__).parents[1] / "docs" / "networks.md"
    _, _, table = page.read_text(encoding="utf-8").partition("## Side by side")
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    kind = "gru" if name == "forecast" else name  # which every network has unless said otherwise
    assert any(kind in cell for cell in first_cells[2:])


def test_a_network_says_what_it_is() -> None:
    config = NetworkConfig(
        kind="lstm", hidden=16, layers=2, conv=5, attention=8, branches=(("flow",), ("heat",))
    )
    assert str(config) == "conv 5 → lstm 16 ×2 → attention 8, 2 branches"
    ahead = NetworkConfig(direction="bidirectional", look_ahead=9)
    assert str(ahead) == "gru 32, 9 samples ahead"
