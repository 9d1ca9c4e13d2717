"""Processes that train one model together: what the Trainer asks, and what a technique answers.

A `Parallel` stands in a recipe and says how many ranks there are. In each of them, inside a process
group of torch.distributed, it gives the `Team` that the Trainer asks at every step. All ranks call
the same methods in the same order, since most of them wait for the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from baselines.errors import LeanRecError

OptimiserKind = type[torch.optim.Optimizer]


class Team:
    """A process's place among those that train `whole`; as it stands, one that trains alone.

    whole: the plain model, which is validated and kept. model: that whose parameters are trained;
    the same, unless they are split over the ranks.
    """

    rank, ranks = 0, 1

    def __init__(self, whole: nn.Module) -> None:
        self.whole = self.model = whole

    def wrap(self, forward: nn.Module) -> nn.Module:
        """What is called in place of `forward`, whose parameters are the model's."""
        return forward

    def optimiser(
        self, kind: OptimiserKind, groups: list[dict[str, Any]], **options: Any
    ) -> torch.optim.Optimizer:
        """An optimiser of the class `kind`."""
        return kind(groups, **options)

    @contextmanager
    def exchange(self, last: bool) -> Iterator[int]:
        """Around a batch's forward and backward pass. Gives the number of batches whose summed
        gradients an update is now due for, 0 where none is. last: no batch follows in this epoch.
        """
        yield 1

    def norm(self, norm: Tensor) -> Tensor:
        """The 2-norm of all gradients, from that of those that this rank holds."""
        return norm

    def updated(self, parameters: Sequence[nn.Parameter]) -> None:
        """After an update, while the gradients are still there."""

    def settle(self) -> None:
        """After an epoch: give `whole` of the first rank the weights that all have come to."""

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the ranks."""
        return value

    def agree(self, value: float) -> float:
        """The first rank's value."""
        return value

    def gather(self, value: Tensor) -> Tensor:
        """The values of all ranks, on the CPU: [ranks, ...]."""
        return value[None].cpu()

    def kept(self) -> list[Tensor]:
        """What this rank holds from batch to batch beside weights and moments."""
        return []

    def state_of(self, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """The whole state of an optimiser; on other ranks than the first it may be empty."""
        return optimiser.state_dict()

    def load(self, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Give an optimiser the whole state, or its part of it."""
        optimiser.load_state_dict(state)

    def resume(self, steps: int) -> None:
        """Go on as after so many steps, with the weights of `whole`."""


def own_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: all of it, unless it is a DTensor."""
    # Asked for by its method: every process would take most of a second to import the class.
    local: Callable[[], Tensor] | None = getattr(tensor, "to_local", None)
    return local() if local else tensor


class Joined(Team):
    """The place of a rank in the process group."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__(whole)
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self._device = next(whole.parameters()).device

    def mean(self, value: Tensor) -> Tensor:
        """By an all-reduce; `value` is left as it is."""
        total = value.clone()
        dist.all_reduce(total)
        return total / self.ranks

    def agree(self, value: float) -> float:
        """By a broadcast."""
        said = torch.tensor([value], dtype=torch.float64, device=self._device)
        dist.broadcast(said, src=0)
        return said.item()

    def gather(self, value: Tensor) -> Tensor:
        """By an all-gather; `value` has the same shape on all ranks."""
        value = value.to(self._device)
        parts = [torch.empty_like(value) for _ in range(self.ranks)]
        dist.all_gather(parts, value)
        return torch.stack(parts).cpu()


@dataclass(frozen=True)
class Parallel(ABC):
    """How ranks train one model together. Subclass it as a frozen dataclass."""

    ranks: int

    @property
    def warmup_steps(self) -> int:
        """The batches after which the ranks communicate as they go on to do."""
        return 0

    @property
    def cycle(self) -> int:
        """The batches after which their communication repeats itself."""
        return 1

    @abstractmethod
    def join(self, whole: nn.Module) -> Team:
        """This rank's place. Raises LeanRecError where the ranks do not suit it."""


def team_for(parallel: Parallel | None, whole: nn.Module) -> Team:
    """The team that trains `whole`: of one, where the recipe is not parallel.

    Raises LeanRecError where this process is not in a process group of as many ranks.
    """
    if parallel is None:
        return Team(whole)
    there = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 0
    if there != parallel.ranks:
        raise LeanRecError(
            f"The recipe is for {parallel.ranks} ranks, and this process is "
            + (f"one of {there}." if there else "in no process group."),
            "Nothing was trained.",
            "Train by a Pipeline, which starts the ranks.",
        )
    return parallel.join(whole)
