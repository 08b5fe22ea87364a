"""What training hides: the share asked for, everywhere alike, in single values and in runs."""

import pytest
import torch

from edgernn.training.hiding import hide


def hidden(
    share: float, *, seed: int = 0, chunk: tuple[int, int, int] = (64, 500, 6)
) -> torch.Tensor:
    return hide(chunk, share, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.0, 0.06, 0.3, 0.9])
def test_the_share_of_values_hidden_is_what_was_asked_for(share: float) -> None:
    found = torch.stack([hidden(share, seed=seed).mean() for seed in range(10)]).mean()
    assert float(found) == pytest.approx(share, abs=0.04 * share)


def test_only_0_and_1_are_drawn() -> None:
    assert set(hidden(0.3).flatten().tolist()) == {0.0, 1.0}


def test_no_place_in_a_chunk_is_hidden_more_often_than_another() -> None:
    share = torch.stack([hidden(0.3, seed=seed) for seed in range(20)]).mean((0, 2, 3))  # (T,)
    assert float(share.min()) > 0.27 and float(share.max()) < 0.33


def run_lengths(away: torch.Tensor) -> set[int]:
    """away (T, N) → the lengths of its runs."""
    found = set()
    for column in away.T.tolist():
        words = "".join("x" if there else " " for there in column).split()
        found |= {len(word) for word in words}
    return found


def test_whole_samples_are_away_for_runs_of_every_length() -> None:
    lengths = run_lengths(hidden(0.1, chunk=(64, 10_000, 2)).amin(-1) > 0)
    assert lengths >= set(range(1, 56))


def test_a_channel_is_away_for_the_whole_chunk_now_and_then() -> None:
    away = hidden(0.1).amin(0) > 0  # (N, C)
    assert 0.01 < float(away.float().mean()) < 0.05


def test_the_same_seed_hides_the_same() -> None:
    assert torch.equal(hidden(0.2), hidden(0.2))
    assert not torch.equal(hidden(0.2), hidden(0.2, seed=1))


@pytest.mark.parametrize("chunk", [(1, 1, 1), (2, 1, 6), (28, 3, 1)])
def test_a_short_chunk_is_one_too(chunk: tuple[int, int, int]) -> None:
    assert hidden(0.5, chunk=chunk).shape == chunk
