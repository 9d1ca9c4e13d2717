"""A team whose ranks each hold a part of every parameter."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from baselines.parallel import Joined, Parallel, Team, own_part


class FullySharded(Joined):
    """Trains a copy of the model whose parameters are split by their first dimension."""

    def __init__(self, whole: nn.Module) -> None:
        from torch.distributed.device_mesh import DeviceMesh  # takes most of a second
        from torch.distributed.fsdp import fully_shard

        super().__init__(whole)
        group = dist.distributed_c10d._get_default_group()
        self.model = copy.deepcopy(whole)
        fully_shard(self.model, mesh=DeviceMesh.from_group(group, self._device.type))

    def norm(self, norm: Tensor) -> Tensor:
        """By an all-reduce of the squares."""
        square = norm**2
        dist.all_reduce(square)
        return square.sqrt()

    @torch.no_grad()
    def settle(self) -> None:
        """Put the parts together in `whole`, on every rank."""
        for plain, own in zip(self.whole.parameters(), self.model.parameters(), strict=True):
            plain.copy_(_whole(own))
        for kept, seen in zip(self.whole.buffers(), self.model.buffers(), strict=True):
            if kept.layout is torch.strided:
                kept.copy_(seen)

    def state_of(self, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """Whole tensors, on every rank."""
        state = optimiser.state_dict()
        return {
            **state,
            "state": {
                number: {name: _whole(value) for name, value in moments.items()}
                for number, moments in state["state"].items()
            },
        }

    def load(self, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """This rank's part of every tensor."""
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        optimiser.load_state_dict(
            {
                **state,
                "state": {
                    number: {name: _part(m, parameters[number]) for name, m in moments.items()}
                    for number, moments in state["state"].items()
                },
            }
        )

    @torch.no_grad()
    def resume(self, steps: int) -> None:
        """Split the weights of `whole` anew."""
        for plain, own in zip(self.whole.parameters(), self.model.parameters(), strict=True):
            own.copy_(_part(plain, own))
        for kept, seen in zip(self.whole.buffers(), self.model.buffers(), strict=True):
            if kept.layout is torch.strided:
                seen.copy_(kept)


def _whole(tensor: Tensor) -> Tensor:
    """The parts of a tensor put together, on every rank."""
    part = own_part(tensor)
    return tensor if part is tensor else gathered(part, len(tensor))


def gathered(part: Tensor, rows: int) -> Tensor:
    """The parts of a tensor of `rows` rows, equal but for the last ranks', which may hold less or
    nothing; whole, on every rank. By a plain collective: `full_tensor` takes a functional one,
    which hangs now and then in a process group written in Python."""
    ranks = dist.get_world_size()
    share = -(-rows // ranks)
    padded = part.new_zeros(share, *part.shape[1:])
    padded[: len(part)] = part
    whole = part.new_empty(share * ranks, *part.shape[1:])
    dist.all_gather_into_tensor(whole, padded)
    return whole[:rows]


def _part(whole: Tensor, like: Tensor) -> Tensor:
    """`whole`, split as `like` is; a scalar is left alone."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or whole.shape != like.shape:
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


@dataclass(frozen=True)
class Everything(Parallel):
    """Weights, gradients and state are split over the ranks."""

    def join(self, whole: nn.Module) -> Team:
        """A fully sharded team."""
        return FullySharded(whole)
