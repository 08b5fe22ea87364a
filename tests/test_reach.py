"""How far back the gradient reaches: networks made to vanish, to explode, and a healthy one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgernn.nets import NETWORKS, Classifier, Detector, Forecaster, HeadConfig, NetworkConfig
from edgernn.recording import write_recording
from edgernn.simulate.pump import simulate_pump
from edgernn.training.reach import Reach, measure_reach
from edgernn.training.stretches import Lanes

CHUNK = 32
STEP = 0.05
"""Of a finite difference: large enough for float32."""


def detector(kind: str = "rnn", *, hidden: int = 16, seed: int = 0) -> Detector:
    return Detector(
        ("p", "q"), NetworkConfig(kind=kind, hidden=hidden), HeadConfig(), span=10, seed=seed
    )


def with_recurrent_radius(radius: float) -> Detector:
    """An RNN whose recurrent matrix is a rotation times `radius`, and whose inputs are faint, so
    that tanh stays where it is straight."""
    made = detector()
    with torch.no_grad():
        for name, weight in made.network.named_parameters():
            if "weight_hh" in name:
                torch.nn.init.orthogonal_(weight, generator=torch.Generator().manual_seed(0))
                weight.mul_(radius)
            else:
                weight.mul_(1e-9 if radius > 1 else 1.0)
    return made


def reach(made: Detector) -> Reach:
    x = torch.randn(2 * CHUNK * 4 + 1, 3, 2, generator=torch.Generator().manual_seed(0))
    return measure_reach(made, Lanes(x), chunk=CHUNK)


def test_with_tiny_recurrent_weights_the_gradient_vanishes_and_another_kind_is_named() -> None:
    found = reach(with_recurrent_radius(0.001))
    assert (found.vanishes, found.explodes, found.samples) == (True, False, 1)
    assert 'network.kind = "gru"' in " ".join(found.sentences("rnn"))


def test_with_a_spectral_radius_far_above_1_it_explodes_and_clipping_is_named() -> None:
    found = reach(with_recurrent_radius(1.3))
    assert (found.vanishes, found.explodes) == (False, True)
    said, remedy = found.sentences("rnn")
    growth = found.norms.max() / found.norms[0]
    assert found.peak > 1.5 * CHUNK
    assert 0.05 * 1.3**63 < growth < 1.3**63
    assert said.endswith(
        f"{found.peak} samples back it is {growth:.3g} times as large as 1 sample back"
    )
    assert "training.clip_norm" in remedy


@pytest.mark.parametrize(
    ("norms", "said"),
    [
        ([1, 2, 3, 4, 5, 6, 50, 7], "7 samples back it is 50 times as large as 1 sample back"),
        ([0, 0, 0, 0, 0, 0.25, 0, 0], "6 samples back it is 0.25, and 0 1 sample back"),
        ([1, 1, np.nan, np.inf, 1, 1, 1, 1], "3 samples back it is no finite number"),
    ],
)
def test_where_the_gradient_is_largest_is_what_is_said_of_an_explosion(
    norms: list[float], said: str
) -> None:
    found = Reach(np.array(norms, np.float64), chunk=4)
    assert found.explodes
    assert found.sentences("rnn")[0] == f"the gradient explodes: {said}"


def test_a_rotation_carries_the_gradient_over_the_whole_chunk() -> None:
    made = with_recurrent_radius(1.0)
    with torch.no_grad():
        for name, weight in made.network.named_parameters():
            if "weight_ih" in name or "bias" in name:
                weight.mul_(1e-6)
    found = reach(made)
    assert (found.vanishes, found.explodes, found.samples) == (False, False, 2 * CHUNK)


def test_a_fresh_gru_is_healthy() -> None:
    found = reach(detector("gru"))
    assert (found.vanishes, found.explodes) == (False, False)
    assert len(found.sentences("gru")) == 1


@pytest.mark.parametrize("kind", NETWORKS)
def test_it_is_measured_in_any_network(kind: str) -> None:
    norms = reach(detector(kind)).norms
    assert norms.shape == (2 * CHUNK,)
    assert np.isfinite(norms).all() and norms[0] > 0


def test_the_norms_are_those_of_a_finite_difference() -> None:
    made = detector("gru", hidden=4)
    x = torch.randn(2 * CHUNK + 1, 1, 2, generator=torch.Generator().manual_seed(1))
    made.centre.fill_(0.5)
    made.scale.fill_(2.0)

    def lost(x: torch.Tensor) -> float:
        _, _, state = made.loss(x[:-1], torch.zeros_like(x[:-1]), *made.fresh_state(1))
        loss, values, _ = made.loss(x[-1:], torch.zeros_like(x[-1:]), *state)
        return float(loss / values)

    squares = 0.0
    with torch.no_grad():
        for channel in range(2):
            moved = []
            for sign in (1, -1):
                other = x.clone()
                other[-4, 0, channel] += sign * STEP
                moved.append(lost(other))
            squares += ((moved[0] - moved[1]) / (2 * STEP) * 2.0) ** 2
    found = measure_reach(made, Lanes(x), chunk=CHUNK).norms[2]  # lag 3
    assert found == pytest.approx(squares**0.5, rel=0.01)


def test_the_command_says_it_and_leaves_a_picture(tmp_path: Path) -> None:
    write_recording(tmp_path / "pump.csv", simulate_pump(hours=0.4, seed=1))
    done = subprocess.run(
        [sys.executable, "-m", "edgernn", "train", "pump.csv", "--epochs", "2", "--diagnose"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "before training: the gradient reaches back" in done.stdout
    assert "after training: the gradient reaches back" in done.stdout
    assert (tmp_path / "runs/pump/gradient.png").read_bytes().startswith(b"\x89PNG")


def test_the_reach_of_other_tasks_is_measured_by_their_own_loss() -> None:
    x = torch.randn(200, 2, 2, generator=torch.Generator().manual_seed(0))
    label = (x[..., :1] > 0).float()
    classifier = Classifier(("a", "b"), NetworkConfig(hidden=4), classes=("no", "yes"), seed=0)
    forecaster = Forecaster(("a", "b"), NetworkConfig(hidden=4), horizon=3, seed=0)
    for model, samples in ((classifier, torch.cat([x, label], dim=-1)), (forecaster, x)):
        reach = measure_reach(model, Lanes(samples), chunk=8)
        assert len(reach.norms) == 16
        assert reach.norms[0] > 0
