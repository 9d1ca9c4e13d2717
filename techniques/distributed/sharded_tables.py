"""A team whose ranks each hold a part of every table's rows, and all of everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from baselines.parallel import Joined, Parallel, Team
from techniques.distributed.fully_sharded import gathered
from techniques.surgery import copy_with, exactly


class ShardedTable(nn.Module):
    """Takes the place of an `nn.Embedding` in training. Rank r holds rows r·share to (r+1)·share.

    A rank asks the owners for each row of its batch once; backwards, the rows' gradients go the
    other way, where they are averaged over the ranks. Every rank must call it as often.
    """

    def __init__(self, table: nn.Embedding) -> None:
        """table: the whole, of which this rank's rows are copied."""
        super().__init__()
        self.rows, self.ranks = table.num_embeddings, dist.get_world_size()
        self.share = -(-self.rows // self.ranks)
        self.first = min(dist.get_rank() * self.share, self.rows)
        self.part = nn.Embedding.from_pretrained(
            self.own(table.weight.detach()).clone(), freeze=not table.weight.requires_grad
        )

    def own(self, whole: Tensor) -> Tensor:
        """This rank's rows of `whole`."""
        return whole[self.first : self.first + self.share]

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64, any shape. Returns the same shape and d."""
        once, places = ids.unique(return_inverse=True)  # ascending, so by owner
        wanted = (once // self.share).bincount(minlength=self.ranks)
        asked = torch.empty_like(wanted)
        dist.all_to_all_single(asked, wanted)
        mine, theirs = wanted.tolist(), asked.tolist()
        received = _exchanged(once, mine, theirs)
        vectors = _Handed.apply(self.part(received - self.first), theirs, mine)
        return functional.embedding(places, vectors)


class _Handed(torch.autograd.Function):
    """Rows handed to the ranks that asked for them; backwards, the mean of their gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, theirs: list[int], mine: list[int]) -> Tensor:
        ctx.theirs, ctx.mine = theirs, mine
        return _exchanged(rows, theirs, mine)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = _exchanged(gradients[0].contiguous(), ctx.mine, ctx.theirs)
        return gradient / dist.get_world_size(), None, None


def _exchanged(rows: Tensor, given: list[int], taken: list[int]) -> Tensor:
    """`given` rows for each rank, in its order, for `taken` rows from each."""
    got = rows.new_empty(sum(taken), *rows.shape[1:])
    dist.all_to_all_single(got, rows, taken, given)
    return got


class TableSharded(Joined):
    """Trains the model with its tables split by rows; DistributedDataParallel averages the rest.

    Tables with a padding row or a greatest norm belong to the rest.
    """

    def __init__(self, whole: nn.Module) -> None:
        super().__init__(whole)
        self.tables = {
            table: ShardedTable(table)
            for table in exactly(whole, nn.Embedding)
            if table.padding_idx is None and table.max_norm is None
        }
        self.model = copy_with(whole, self.tables)

    def wrap(self, forward: nn.Module) -> nn.Module:
        """`forward` in DistributedDataParallel, which leaves the tables alone."""
        parts = {id(sharded.part.weight) for sharded in self.tables.values()}
        ignored = [name for name, p in forward.named_parameters() if id(p) in parts]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(forward, ignored)
        return DistributedDataParallel(
            forward, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def norm(self, norm: Tensor) -> Tensor:
        """By an all-reduce of the squares of the parts."""
        gradients = [sharded.part.weight.grad for sharded in self.tables.values()]
        mine = torch.nn.utils.get_total_norm([g for g in gradients if g is not None]) ** 2
        all_parts = mine.clone()
        dist.all_reduce(all_parts)
        return (norm**2 - mine).clamp(min=0).add(all_parts).sqrt()

    @torch.no_grad()
    def settle(self) -> None:
        """Put the tables together in `whole`, on every rank."""
        for table, sharded in self.tables.items():
            table.weight.copy_(gathered(sharded.part.weight, sharded.rows))

    def state_of(self, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """Whole tables' moments, on every rank."""
        return self._changed(
            optimiser, optimiser.state_dict(), lambda sharded, part: gathered(part, sharded.rows)
        )

    def load(self, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """This rank's rows of every table's moments."""
        optimiser.load_state_dict(self._changed(optimiser, state, ShardedTable.own))

    def _changed(
        self,
        optimiser: torch.optim.Optimizer,
        state: dict[str, Any],
        change: Callable[[ShardedTable, Tensor], Tensor],
    ) -> dict[str, Any]:
        """`state` with `change` made to the moments of tables; steps are scalars, and stay."""
        by_weight = {id(sharded.part.weight): sharded for sharded in self.tables.values()}
        numbered = [p for group in optimiser.param_groups for p in group["params"]]

        def of(number: int, moments: dict[str, Tensor]) -> dict[str, Tensor]:
            sharded = by_weight.get(id(numbered[number]))
            if sharded is None:
                return moments
            return {name: change(sharded, m) if m.ndim else m for name, m in moments.items()}

        return {**state, "state": {number: of(number, m) for number, m in state["state"].items()}}

    @torch.no_grad()
    def resume(self, steps: int) -> None:
        """Take this rank's rows of the tables of `whole` anew."""
        for table, sharded in self.tables.items():
            sharded.part.weight.copy_(sharded.own(table.weight))


@dataclass(frozen=True)
class Tables(Parallel):
    """Tables are split over the ranks by rows; all else is averaged at every batch."""

    def join(self, whole: nn.Module) -> Team:
        """A team with sharded tables."""
        return TableSharded(whole)
