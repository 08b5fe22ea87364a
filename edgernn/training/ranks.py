"""Several processes that train one model (torchrun): who this one is, and sums over all."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from edgernn.errors import EdgernnError
from edgernn.run import pick_device


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process among `count`; alone unless told otherwise."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def share(self, streams: int) -> slice:
        """The streams of `streams` that are this process's own: disjoint, none left over."""
        return slice(self.rank * streams // self.count, (self.rank + 1) * streams // self.count)

    def add_up(self, values: Tensor) -> Tensor:
        """`values` of every process added up, in place and the same everywhere."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def add_up_gradients(
        self, parameters: Sequence[Tensor], loss: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Turn gradients of each process's sum of losses into those of the mean over all values.

        One flat bucket, so one message: every gradient, the sum and the number of values. Weighted
        by those numbers, it is the gradient of one process with all streams. Returns the sum and
        the number over all.
        """
        with_gradient = [p for p in parameters if p.grad is not None]
        gradients = [p.grad.flatten() for p in with_gradient if p.grad is not None]
        flat = self.add_up(torch.cat([*gradients, torch.stack([loss.detach(), values]).float()]))
        total, count = flat[-2], flat[-1]
        parts = torch.split(flat[:-2] / count.clamp(min=1), [p.numel() for p in with_gradient])
        for parameter, part in zip(with_gradient, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return total, count

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Every process takes over what the first one has."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def agree_on(self, number: int, device: torch.device) -> bool:
        """Whether every process has this number."""
        if self.count == 1:
            return True
        extremes = torch.tensor([number, -number], device=device)
        dist.all_reduce(extremes, dist.ReduceOp.MAX)
        return bool(extremes[0] == -extremes[1])


@contextmanager
def joined(device_name: str) -> Iterator[Ranks]:
    """This process among those that torchrun started, by its environment; alone without torchrun.

    gloo on the CPU, nccl on CUDA with a device for each process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    device = pick_device(device_name)
    if device.type == "cuda":
        local, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= devices:
            raise EdgernnError(
                f"torchrun --nproc-per-node: expected at most {devices}, as many as there are CUDA "
                f"devices, got {os.environ['LOCAL_WORLD_SIZE']}"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
