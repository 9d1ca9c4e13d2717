"""Training by several ranks, each on its share of every batch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from baselines.base import Recipe
from baselines.errors import LeanRecError
from baselines.parallel import Parallel
from techniques.base import Context, Requires, Technique, technique
from techniques.distributed.data_parallel import (
    Averaged,
    AveragedByGroups,
    EveryFewSteps,
    EveryStep,
    InBf16,
    StateSharded,
)
from techniques.distributed.fully_sharded import Everything
from techniques.distributed.low_rank import InLowRank
from techniques.distributed.sharded_tables import Tables

Ranks = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]
Warmup = Annotated[int, Field(ge=0)]


def on_ranks(recipe: Recipe, parallel: Parallel) -> Recipe:
    """`recipe`, trained by `parallel`. Raises LeanRecError where its gradients cannot be sent."""
    if recipe.parallel is not None:
        raise LeanRecError(
            "The stack holds two techniques that each train on several ranks.",
            "Which of them exchanges gradients would be arbitrary.",
            "Keep one of them.",
        )
    if recipe.sparse_embeddings:
        raise LeanRecError(
            "The ranks exchange dense gradients, and the recipe makes those of tables sparse.",
            "Hooks of DistributedDataParallel do not take sparse buckets.",
            "Train the embeddings densely, or on one rank.",
        )
    return dataclasses.replace(recipe, parallel=parallel)


class _Distributed(Technique):
    family = "distributed"
    requires = Requires(weights=True)


@technique("ddp")
@dataclass(frozen=True)
class Ddp(_Distributed):
    """Data-parallel training: all ranks average their gradients at every batch.

    Source: `torch.nn.parallel.DistributedDataParallel`; Li et al., "PyTorch Distributed", VLDB
    2020. The global batch stays what the recipe says, so each rank computes less and sends as many
    bytes as the model has: gradients of tables are dense, and the tables are the traffic. Pays
    where a step's arithmetic takes longer than sending the gradients; tables of rare ids on a slow
    link make it a loss. One update in exact arithmetic is that of one process, except that
    in-batch negatives and batch statistics are each rank's own.
    """

    ranks: Ranks = 2

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Train on all ranks."""
        return on_ranks(recipe, EveryStep(self.ranks))


@technique("ddp-accumulate")
@dataclass(frozen=True)
class DdpAccumulate(_Distributed):
    """One update, by averaged gradients, for every `batches` batches.

    Source: `DistributedDataParallel.no_sync`. A step sends 1 ÷ `batches` of what `ddp` sends; the
    updates are as few, and each is of a batch as much larger. The rate grows by √`batches`, the
    rule for Adam: Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient
    Algorithms", NeurIPS 2022. Costs quality where epochs are few, since a model then sees too few
    updates.
    """

    ranks: Ranks = 2
    batches: Count = 4

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Train on all ranks, at a higher rate."""
        growth = math.sqrt(self.batches)
        own = {name: rate * growth for name, rate in recipe.own_rates.items()}
        faster = dataclasses.replace(recipe, lr=recipe.lr * growth, own_rates=own)
        return on_ranks(faster, EveryFewSteps(self.ranks, self.batches))


@technique("ddp-compress")
@dataclass(frozen=True)
class DdpCompress(_Distributed):
    """Gradients are sent in bfloat16.

    Source: a communication hook as torch's `bf16_compress_hook`, which takes NCCL alone. Half the
    bytes of `ddp`; sums keep 8 significant bits. Rounding costs a pass over all gradients, so it
    pays on a slow link and not within a machine.
    """

    ranks: Ranks = 2

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Train on all ranks."""
        return on_ranks(recipe, InBf16(self.ranks))


@technique("ddp-powersgd")
@dataclass(frozen=True)
class DdpPowerSgd(_Distributed):
    """Gradients are sent as products of two matrices of `approximation_rank` columns.

    Source: Vogels, Karimireddy and Jaggi, "PowerSGD", NeurIPS 2019, with warm start and error
    feedback, in a communication hook of our own: torch's `powerSGD_hook` can hang on gloo. A matrix
    of n × m sends `approximation_rank`·(n + m) numbers in place of n·m. A table is one more such
    matrix: a row of d numbers is sent as `approximation_rank`, and all rows are, so that what is
    missed of a row may arrive in batches that do not hold it. Vectors and small matrices are sent
    whole. Each rank keeps as many bytes as it has weights for what was missed; a training that goes
    on from a checkpoint forgets it. Costs products and a QR of every matrix at each batch, and
    quality that wants measuring; pays on a slow link alone.
    """

    ranks: Ranks = 2
    approximation_rank: Count = 2

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Train on all ranks."""
        return on_ranks(recipe, InLowRank(self.ranks, self.approximation_rank))


@technique("ddp-local-sgd")
@dataclass(frozen=True)
class DdpLocalSgd(_Distributed):
    """After `warmup` batches, ranks update alone and average their weights once in `period`.

    Source: Lin et al., "Don't Use Large Mini-Batches, Use Local SGD", ICLR 2020; torch's
    `PostLocalSGDState` and `PeriodicModelAverager`. Sends 1 ÷ `period` of what `ddp` sends, in one
    collective. Each rank's updates are of smaller batches and by moments of its own, so quality
    has to be measured; weights are averaged before each validation. A training that goes on from
    a checkpoint goes on with the first rank's moments.
    """

    ranks: Ranks = 2
    period: Count = 8
    warmup: Warmup = 64

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Train on all ranks."""
        return on_ranks(recipe, Averaged(self.ranks, self.period, self.warmup))


@technique("ddp-hierarchical")
@dataclass(frozen=True)
class DdpHierarchical(_Distributed):
    """Local SGD that averages in groups of ranks more often than over all of them.

    Source: Lin et al. as for `ddp-local-sgd`, section 5 of "hierarchical local SGD"; torch's
    `HierarchicalModelAverager`. Groups of `group` ranks, neighbours in number, average once in
    `period` batches, all ranks once in `rounds` of these. Pays where a group sits on one machine,
    and only the average of all crosses the slow link.
    """

    ranks: Ranks = 4
    group: Count = 2
    period: Count = 4
    rounds: Annotated[int, Field(ge=2)] = 4
    warmup: Warmup = 64

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Train on all ranks."""
        return on_ranks(
            recipe,
            AveragedByGroups(self.ranks, self.period, self.warmup, self.group, self.rounds),
        )


@technique("zero")
@dataclass(frozen=True)
class Zero(_Distributed):
    """Data-parallel training with the optimiser's state split over the ranks.

    Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
    Models", SC 2020, stage 1; `torch.distributed.optim.ZeroRedundancyOptimizer`. Each rank holds
    the moments of whole tensors, about 1 ÷ `ranks` of them in all: one table larger than all else
    is not divided. The updated weights are sent beside the gradients, one collective a tensor, so
    a step sends more than with `ddp`. A memory technique; expect no speed.
    """

    ranks: Ranks = 2

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Train on all ranks."""
        return on_ranks(recipe, StateSharded(self.ranks))


@technique("fsdp")
@dataclass(frozen=True)
class Fsdp(_Distributed):
    """Weights, gradients and optimiser state are split over the ranks, row by row.

    Source: `torch.distributed.fsdp.fully_shard`; Zhao et al., "PyTorch FSDP", VLDB 2023; ZeRO
    stage 3. The whole model is put together for a step and dropped after it, as one group, so the
    gain is what lies between steps: weights and moments. Tables are divided too, unlike with
    `zero`. A step gathers weights and scatters gradients: together the bytes of `ddp`, before any
    arithmetic starts and after all of it. A memory technique; expect no speed. For validation the
    trainer keeps a whole copy of the weights beside, which is not counted as state.
    """

    ranks: Ranks = 2

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Train on all ranks."""
        return on_ranks(recipe, Everything(self.ranks))


@technique("embedding-shard")
@dataclass(frozen=True)
class EmbeddingShard(_Distributed):
    """Tables are split over the ranks, row by row; the rest is trained as with `ddp`.

    Source: the hybrid parallelism of Naumov et al., "Deep Learning Recommendation Model for
    Personalization and Recommendation Systems", arXiv:1906.00091, with the row-wise sharding of
    Ivchenko et al., "TorchRec", RecSys 2022, by all-to-all collectives of torch.distributed, which
    serve every optimiser on every device. (TorchRec's fused kernels know no Adam on a CPU; on a
    cluster of CUDA devices it is the library to take.) Each rank holds 1 ÷ `ranks` of the tables
    and of their moments, and sends, for each distinct id of its share of a batch, the id, a row and
    a gradient, in place of whole tables: far less than `ddp` where tables are large beside a batch.
    A look-up takes three collectives, and one backwards, which a link's delay makes dear.
    Rows fall to ranks in equal blocks of ids, so a rank that holds the popular ones is asked for
    more. An update is that of one process. For validation the trainer keeps a whole copy of the
    weights beside, which is not counted as state.
    """

    ranks: Ranks = 2
    # Models of other tasks read tables whole, or by more than look-ups.
    requires = Requires(tasks=frozenset({"ctr"}), modules=(nn.Embedding,), weights=True)

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        """Train on all ranks."""
        return on_ranks(recipe, Tables(self.ranks))
