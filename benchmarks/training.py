"""An epoch of the stateful trainer beside the bare forward and backward pass of its network.

Alone: `python -m benchmarks.training`, or with the devices: `… cpu cuda`.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.measure import pump, table
from edgernn.config import Config, TrainingConfig
from edgernn.recording import Recording
from edgernn.run import EpochLoss, build_detector
from edgernn.training.fit import fit, fit_scaling, mean_loss
from edgernn.training.stretches import Stretches, side_by_side, split

ROUNDS = 3
EPOCHS = 4
"""Of each round; the first of them warms up and does not count."""


def main(devices: Sequence[str]) -> None:
    """Print the table; without `devices`, of the CPU and of CUDA where there is one."""
    recording = pump()
    cores = torch.get_num_threads()
    rows = []
    for device in devices or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]):
        config = Config(recording=(), training=TrainingConfig(epochs=EPOCHS, device=device))
        stretches = split(recording, config)
        streams, chunk = config.training.streams, config.training.chunk
        x = side_by_side(stretches.fit, streams, at_least=chunk).x
        samples = x.shape[0] * x.shape[1]
        for threads in sorted({1, cores}) if device == "cpu" else [cores]:
            torch.set_num_threads(threads)
            ours, bare, validation = [], [], []
            for _ in range(ROUNDS):
                ours += _trainer_epochs(recording, stretches, config)
                bare += _bare_epochs(x.to(device), config)
                validation += _validations(recording, stretches, config)
            ours_s, bare_s, validation_s = map(statistics.median, (ours, bare, validation))
            rows.append(
                [
                    f"{device}, threads: {threads}" if device == "cpu" else device,
                    f"{1e3 * ours_s:,.0f}",
                    f"{1e3 * validation_s:,.0f}",
                    f"{1e3 * bare_s:,.0f}",
                    f"{ours_s / bare_s:.2f}",
                    f"{(ours_s - validation_s) / bare_s:.2f}",
                    f"{samples / ours_s:,.0f}",
                ]
            )
    print("## Training: one epoch\n")
    print(
        f"{samples:,} samples of the simulated pump as {x.shape[1]} streams of {x.shape[0]}, in "
        f"chunks of {config.training.chunk}, {config.network.kind} of {config.network.hidden}; "
        f"torch would take {cores} threads. Trainer: an epoch of `edgernn train`, with its "
        f"validation, a forward pass over a quarter as many samples. Bare: forward and backward of "
        f"`nn.GRU` and `nn.Linear` alone over the same "
        f"chunks. Median of {ROUNDS * (EPOCHS - 1)} epochs.\n"
    )
    titles = [
        *("device", "trainer, ms", "of it validation, ms", "bare, ms", "trainer / bare"),
        *("without validation / bare", "trainer, samples/s"),
    ]
    print(table(titles, rows))
    print(
        "What did not help: `torch.compile` of the loss. On one thread of a CPU it took 45 s, and "
        "then a pass took 101 ms beside 95 ms without: the GRU is one operator to it, and the rest "
        "is little.\n"
    )


def _trainer_epochs(recording: Recording, stretches: Stretches, config: Config) -> list[float]:
    """Seconds of each epoch after the first."""
    detector = build_detector(config, recording.channels, period_s=recording.period_s)
    fit_scaling(detector, stretches.fit)
    ends_s: list[float] = []

    def note_end(_: EpochLoss) -> None:
        ends_s.append(time.perf_counter())

    fit(detector, stretches, config.training, note_end)
    return [later - earlier for earlier, later in pairwise(ends_s)]


def _validations(recording: Recording, stretches: Stretches, config: Config) -> list[float]:
    """Seconds of each validation after the first."""
    training = config.training
    detector = build_detector(config, recording.channels, period_s=recording.period_s)
    held_out = side_by_side(stretches.validation, training.streams, at_least=training.chunk)
    device = torch.device(training.device)
    detector.to(device)
    held_out = held_out.to(device)
    times_s = []
    for _ in range(EPOCHS):
        began_s = time.perf_counter()
        mean_loss(detector, held_out)  # waits for the device
        times_s.append(time.perf_counter() - began_s)
    return times_s[1:]


def _bare_epochs(x: Tensor, config: Config) -> list[float]:
    """Seconds of each epoch after the first; x (T, N, C)."""
    channels, hidden = x.shape[2], config.network.hidden
    gru = nn.GRU(2 * channels, hidden).to(x.device)
    linear = nn.Linear(hidden, 2 * channels).to(x.device)
    scaled = (x - x.nanmean((0, 1))).nan_to_num()
    inputs = torch.cat([scaled, torch.ones_like(x)], dim=-1)  # (T, N, 2C)
    times_s = []
    for _ in range(EPOCHS):
        began_s = time.perf_counter()
        h = torch.zeros(1, x.shape[1], hidden, device=x.device)
        for chunk in torch.split(inputs, config.training.chunk):
            y, h = gru(chunk, h.detach())  # (chunk, N, H), (1, N, H)
            linear(y).square().mean().backward()
        if x.is_cuda:
            torch.cuda.synchronize()
        times_s.append(time.perf_counter() - began_s)
    return times_s[1:]


if __name__ == "__main__":
    main(sys.argv[1:])
