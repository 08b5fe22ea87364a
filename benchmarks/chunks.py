"""Stateful chunks beside the usual sliding windows: the same network learns from the same samples.

Alone: `python -m benchmarks.chunks`
"""

import time

import torch
from torch import Tensor, nn

from benchmarks.measure import pump, table
from edgernn.config import Config, TrainingConfig
from edgernn.training.stretches import side_by_side, split

WINDOW = 100
"""Samples that a sliding window looks back on for the forecast of one."""
BATCH = 256
"""Windows in one step of the optimiser."""
WINDOWS = 8
"""Steps that are timed: all windows of the recording would take minutes."""
ROUNDS = 5


class Network(nn.Module):
    """A GRU and a read-out, no state kept outside."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, hidden)
        self.linear = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (T, N, C) → forecasts (T, N, C), h (1, N, H)."""
        y, h = self.gru(x, h)
        return self.linear(y), h


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    recording = pump()
    config = Config(recording=(), training=TrainingConfig())
    x = side_by_side(
        split(recording, config).fit, config.training.streams, at_least=config.training.chunk
    ).x
    x = ((x - x.nanmean((0, 1))) / 10).nan_to_num()  # (T, N, C)
    chunks, windows = [], []
    for _ in range(ROUNDS):
        chunks.append(_chunks_per_s(x, config))
        windows.append(_windows_per_s(x, config))
    a, b = sorted(chunks)[ROUNDS // 2], sorted(windows)[ROUNDS // 2]
    print("## Training: stateful chunks against sliding windows\n")
    print(
        f"A GRU of {config.network.hidden} over {x.shape[2]} channels and a linear read-out, "
        f"squared error of the next sample, Adam, one thread. Chunks: {x.shape[1]} streams of "
        f"{config.training.chunk} samples with the state carried on, a loss at every sample. "
        f"Windows: {BATCH} windows of {WINDOW} samples from a fresh state, a loss at the last one. "
        f"Samples that had their turn as target, per second; median of {ROUNDS} rounds.\n"
    )
    titles = ["chunks, samples/s", "windows, samples/s", "chunks / windows"]
    print(table(titles, [[f"{a:,.0f}", f"{b:,.0f}", f"{a / b:.0f}"]]))


def _chunks_per_s(x: Tensor, config: Config) -> float:
    network = Network(x.shape[2], config.network.hidden)
    optimizer = torch.optim.Adam(network.parameters())
    h: Tensor | None = None
    chunks = (torch.split(part, config.training.chunk) for part in (x[:-1], x[1:]))  # views
    began_s, samples = time.perf_counter(), 0
    for given, after in zip(*chunks, strict=True):
        said, h = network(given, None if h is None else h.detach())
        _learn(optimizer, (said - after).square().mean())
        samples += said.shape[0] * said.shape[1]
    return samples / (time.perf_counter() - began_s)


def _windows_per_s(x: Tensor, config: Config) -> float:
    network = Network(x.shape[2], config.network.hidden)
    optimizer = torch.optim.Adam(network.parameters())
    pieces = x[: WINDOW + BATCH].unfold(0, WINDOW + 1, 1)  # (windows, N, C, WINDOW + 1)
    flat = pieces.permute(3, 0, 1, 2).flatten(1, 2)  # (WINDOW + 1, windows · N, C)
    began_s, samples = time.perf_counter(), 0
    for i in range(WINDOWS):
        batch = flat[:, i * BATCH : (i + 1) * BATCH]
        said, _ = network(batch[:-1])
        _learn(optimizer, (said[-1] - batch[-1]).square().mean())
        samples += batch.shape[1]
    return samples / (time.perf_counter() - began_s)


def _learn(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs
    optimizer.step()


if __name__ == "__main__":
    main()
