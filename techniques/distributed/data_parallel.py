"""Data-parallel teams: each rank computes the gradient of its share of a batch, all update alike.

The ranks' buckets of gradients go through DistributedDataParallel's reducer, in which hooks change
what is sent. Buffers stay each rank's own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import (
    PostLocalSGDState,
    post_localSGD_hook,
)
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.algorithms.model_averaging.hierarchical_model_averager import (
    HierarchicalModelAverager,
)
from torch.distributed.algorithms.model_averaging.utils import average_parameters
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from baselines.errors import LeanRecError
from baselines.parallel import Joined, OptimiserKind, Parallel, Team


class Synchronous(Joined):
    """Gradients are averaged over all ranks at every batch."""

    ddp: DistributedDataParallel

    def wrap(self, forward: nn.Module) -> nn.Module:
        """`forward` in DistributedDataParallel."""
        self.ddp = DistributedDataParallel(
            forward, broadcast_buffers=False, gradient_as_bucket_view=True
        )
        return self.ddp


@dataclass(frozen=True)
class EveryStep(Parallel):
    """All ranks average their gradients at every batch."""

    def join(self, whole: nn.Module) -> Team:
        """A synchronous team."""
        return Synchronous(whole)


class Accumulating(Synchronous):
    """Gradients of `batches` batches are added up before they are averaged."""

    def __init__(self, whole: nn.Module, batches: int) -> None:
        super().__init__(whole)
        self.batches, self.added = batches, 0

    @contextmanager
    def exchange(self, last: bool) -> Iterator[int]:
        """An update is due after `batches` batches, or at the end of an epoch."""
        self.added += 1
        due = last or self.added == self.batches
        with nullcontext() if due else self.ddp.no_sync():
            yield self.added if due else 0
        if due:
            self.added = 0


@dataclass(frozen=True)
class EveryFewSteps(Parallel):
    """All ranks average their gradients, and update, once in `batches` batches."""

    batches: int

    @property
    def cycle(self) -> int:
        """From one update to the next."""
        return self.batches

    def join(self, whole: nn.Module) -> Team:
        """An accumulating team."""
        return Accumulating(whole, self.batches)


class Bf16Gradients(Synchronous):
    """Gradients are rounded to bfloat16, averaged in it, and widened again."""

    def wrap(self, forward: nn.Module) -> nn.Module:
        """Buckets go through `average_in_bf16`; torch's own hook of this kind refuses gloo."""
        super().wrap(forward)
        self.ddp.register_comm_hook(None, lambda state, bucket: average_in_bf16(bucket.buffer()))
        return self.ddp


def average_in_bf16(gradients: Tensor) -> Future[Tensor]:
    """`gradients`, float32 [n], replaced by their mean over the ranks, rounded to bfloat16."""
    narrow = gradients.div(dist.get_world_size()).bfloat16()
    work = dist.all_reduce(narrow, async_op=True)
    assert work is not None

    def widen(sent: Future[list[Tensor]]) -> Tensor:
        return gradients.copy_(sent.value()[0])

    future: Future[Tensor] = work.get_future().then(widen)
    return future


@dataclass(frozen=True)
class InBf16(EveryStep):
    """Gradients are averaged at every batch, in bfloat16."""

    def join(self, whole: nn.Module) -> Team:
        """A team whose gradients are narrow."""
        return Bf16Gradients(whole)


Averager = PeriodicModelAverager | HierarchicalModelAverager


class Local(Synchronous):
    """After `warmup_steps` synchronous batches, each rank updates by its own gradients alone, and
    `averager` averages the weights now and then."""

    def __init__(self, whole: nn.Module, warmup_steps: int, averager: Averager) -> None:
        super().__init__(whole)
        self.averager = averager
        self.state = PostLocalSGDState(
            None, None, start_localSGD_iter=warmup_steps, post_local_gradient_allreduce=False
        )

    def wrap(self, forward: nn.Module) -> nn.Module:
        """Gradients go through torch's post-local-SGD hook."""
        super().wrap(forward)
        self.ddp.register_comm_hook(self.state, post_localSGD_hook)
        return self.ddp

    def updated(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the weights where it is time."""
        self.averager.average_parameters(iter(parameters))

    def settle(self) -> None:
        """Average the weights of all ranks."""
        average_parameters(self.model.parameters(), dist.distributed_c10d._get_default_group())

    def resume(self, steps: int) -> None:
        """Hook and averager count on."""
        self.state.iter = self.averager.step = steps


@dataclass(frozen=True)
class Averaged(Parallel):
    """Post-local SGD: ranks average their weights once in `period` batches."""

    period: int
    warmup: int

    @property
    def warmup_steps(self) -> int:
        """The batches that are synchronous."""
        return self.warmup

    @property
    def cycle(self) -> int:
        """From one average to the next."""
        return self.period

    def join(self, whole: nn.Module) -> Team:
        """A local team."""
        averager = PeriodicModelAverager(self.period, warmup_steps=self.warmup)
        return Local(whole, self.warmup, averager)


@dataclass(frozen=True)
class AveragedByGroups(Averaged):
    """Groups of `group` ranks average once in `period` batches, all ranks once in `rounds` of
    these."""

    group: int
    rounds: int

    @property
    def cycle(self) -> int:
        """From one average of all ranks to the next."""
        return self.period * self.rounds

    def join(self, whole: nn.Module) -> Team:
        """A local team. Raises LeanRecError where the ranks do not fall into groups."""
        group = min(self.group, self.ranks)
        if self.ranks % group:
            raise LeanRecError(
                f"{self.ranks} ranks do not fall into groups of {self.group}.",
                "Nothing was trained.",
                "Choose ranks that are a multiple of group.",
            )
        groups = OrderedDict({self.period: group, self.cycle: self.ranks})
        averager = HierarchicalModelAverager(groups, warmup_steps=self.warmup)
        return Local(whole, self.warmup, averager)


class ShardedState(Synchronous):
    """Each rank keeps the optimiser's state of a part of the parameters, updates that part, and
    sends it to the others."""

    def optimiser(
        self, kind: OptimiserKind, groups: list[dict[str, Any]], **options: Any
    ) -> torch.optim.Optimizer:
        """A ZeroRedundancyOptimizer around `kind`."""
        from torch.distributed.optim import ZeroRedundancyOptimizer  # takes most of a second

        lr = groups[0]["lr"]
        return ZeroRedundancyOptimizer(groups, kind, lr=lr, **options)

    def state_of(self, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """The parts of all ranks, put together on the first."""
        from torch.distributed.optim import ZeroRedundancyOptimizer

        if not isinstance(optimiser, ZeroRedundancyOptimizer):
            return super().state_of(optimiser)
        optimiser.consolidate_state_dict(to=0)
        return optimiser.state_dict() if self.rank == 0 else {}


@dataclass(frozen=True)
class StateSharded(EveryStep):
    """Gradients are averaged at every batch; the optimiser's state is split over the ranks."""

    def join(self, whole: nn.Module) -> Team:
        """A team with sharded state."""
        return ShardedState(whole)
