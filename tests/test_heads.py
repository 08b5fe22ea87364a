"""What each head says of a sample, and what it must not have seen of it."""

import numpy as np
import pytest
import torch

from edgernn.errors import EdgernnError
from edgernn.nets import Detector, HeadConfig, NetworkConfig
from edgernn.nets.views import Judge

NAMES = ("a", "b", "c", "d")
SAMPLES = 80


def detector(*kinds: str, look_ahead: int = 0, window: int = 8) -> Detector:
    network = NetworkConfig(
        hidden=8,
        direction="bidirectional" if look_ahead else "causal",
        look_ahead=look_ahead,
    )
    head = HeadConfig(kinds=kinds, window=window if "encoder-decoder" in kinds else 20)
    return Detector(NAMES, network, head, span=10, seed=0).eval()


def expected(made: Detector, x: torch.Tensor) -> torch.Tensor:
    """(T, C) of one stream (T, C)."""
    with torch.no_grad():
        _, _, said, *_ = made(x.unsqueeze(1), *made.fresh_state(1))
    assert isinstance(said, torch.Tensor)
    return said[:, 0]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(SAMPLES, len(NAMES), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("kinds", "look_ahead", "delay"),
    [
        (("forecast",), 0, 0),
        (("forecast",), 5, 5),
        (("reconstruct",), 0, 0),
        (("encoder-decoder",), 0, 4),
        (("forecast", "encoder-decoder"), 0, 4),
        (("forecast", "encoder-decoder"), 6, 6),
    ],
)
def test_all_heads_wait_for_the_latest(kinds: tuple[str, ...], look_ahead: int, delay: int) -> None:
    assert detector(*kinds, look_ahead=look_ahead).delay == delay


@pytest.mark.parametrize("look_ahead", [0, 5])
def test_a_forecast_has_not_seen_its_sample(x: torch.Tensor, look_ahead: int) -> None:
    made = detector("forecast", look_ahead=look_ahead)
    other = x.clone()
    other[30] += 1
    at = 30 + made.delay
    a, b = expected(made, x), expected(made, other)
    assert torch.equal(a[at], b[at])
    assert not torch.equal(a[at + 1], b[at + 1])


@pytest.mark.parametrize("kind", ["reconstruct", "encoder-decoder"])
def test_a_reconstruction_has_seen_its_sample(x: torch.Tensor, kind: str) -> None:
    made = detector(kind)
    other = x.clone()
    other[30] += 1
    at = 30 + made.delay
    assert not torch.equal(expected(made, x)[at], expected(made, other)[at])


def test_a_head_that_need_not_wait_says_the_same_beside_one_that_must(x: torch.Tensor) -> None:
    alone, beside = detector("forecast"), detector("forecast", "encoder-decoder")
    late = beside.delay
    assert torch.equal(expected(alone, x)[:-late], expected(beside, x)[late:])


def test_two_heads_lose_what_each_loses(x: torch.Tensor) -> None:
    def loss(made: Detector) -> float:
        batch = x.unsqueeze(1)
        total, _, _ = made.loss(batch, torch.zeros_like(batch), *made.fresh_state(1))
        return float(total.detach())

    both = detector("forecast", "reconstruct")
    one, other = detector("forecast"), detector("reconstruct")
    for made, head in zip((one, other), both.heads, strict=True):
        (mine,) = made.heads
        mine.load_state_dict(head.state_dict())
    assert loss(both) == pytest.approx(loss(one) + loss(other))


def test_a_window_is_rebuilt_newest_first_from_the_one_vector() -> None:
    made = detector("encoder-decoder", window=6)
    (head,) = made.heads
    features = torch.randn(20, 1, made.network.width)
    z = torch.randn(20, 1, len(NAMES))
    loss = head.window_loss(features, z, torch.ones_like(z))
    other = z.clone()
    other[19] += 1  # in the last window only
    changed = head.window_loss(features, other, torch.ones_like(z))
    assert loss is not None and changed is not None and loss != changed
    assert head.window_loss(features[:5], z[:5], torch.ones_like(z[:5])) is None


@pytest.mark.parametrize("bottleneck", [4, 9])
def test_a_bottleneck_as_wide_as_the_sample_is_refused(bottleneck: int) -> None:
    head = HeadConfig(kinds=("reconstruct",), bottleneck=bottleneck)
    with pytest.raises(EdgernnError, match=r"^head.bottleneck: expected 1–3 for 4 channels, got"):
        Detector(NAMES, NetworkConfig(), head, span=10, seed=0)


def test_one_channel_alone_cannot_contradict_itself() -> None:
    with pytest.raises(EdgernnError, match=r"a channel from the others, and there is only 1$"):
        Detector(("a",), NetworkConfig(), HeadConfig(kinds=("reconstruct",)), span=10, seed=0)


def test_whitened_residuals_are_uncorrelated_and_of_unit_variance() -> None:
    mix = np.array([[1.0, 0.0, 0.0], [0.9, 0.4, 0.0], [0.1, -0.5, 0.8]])
    r = np.random.default_rng(0).standard_normal((200_000, 3)) @ mix.T
    judge = Judge(3, span=10)
    judge.relate(torch.from_numpy(np.cov(r.T)), "whitened")
    white = torch.from_numpy(r).float() @ judge.relation
    np.testing.assert_allclose(np.cov(white.numpy().T), np.eye(3), atol=1e-3)


def test_a_conditional_residual_is_what_the_others_cannot_tell_in_unit_variance() -> None:
    r = np.random.default_rng(0).standard_normal((200_000, 2))
    r[:, 1] = 0.95 * r[:, 0] + np.sqrt(1 - 0.95**2) * r[:, 1]
    judge = Judge(2, span=10)
    judge.relate(torch.from_numpy(np.cov(r.T)))
    left = (torch.from_numpy(r).float() @ judge.relation).numpy()
    best = r[:, 1] - 0.95 * r[:, 0]  # least squares
    np.testing.assert_allclose(left.std(0), [1, 1], atol=5e-3)
    assert np.corrcoef(left[:, 1], best)[0, 1] > 0.9999
