"""The contract of a baseline: data, model, training recipe, task. Every other room knows only this.

A *batch* or *request* is a tuple of tensors, one per model input, each with the batch as its first
dimension. Models are plain PyTorch and know no technique.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from baselines.errors import LeanRecError
from baselines.parallel import Parallel
from baselines.registry import Registry

Batch = tuple[Tensor, ...]
Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Split:
    """Rows of one split, column-wise, on the CPU; n rows.

    inputs: what the model is called with, one tensor of n rows per input.
    labels: float32 [n]. users, items: int64 [n], what segments and per-user metrics group by.
    segments: name → int64 [n] of segment numbers, for example ``popularity`` 0…9 (0 the rarest).
    """

    inputs: Batch
    labels: Tensor
    users: Tensor
    items: Tensor
    segments: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (first 16 hex digits) over users, items and labels: what is judged."""
        state = hashlib.sha256()
        for column in (self.users, self.items, self.labels):
            state.update(np.ascontiguousarray(column.numpy()).data)
        return state.hexdigest()[:16]


@dataclass(frozen=True)
class Dataset:
    """A data set after filters and split.

    fields: name → cardinality, in the order of the id columns. numeric: names of the columns of the
    float32 input that follows the ids, where there is one. texts: what is said of each item, by
    item id, where it is known. user_features, item_features: name → int64 [users] or [items], what
    a retrieval model may know beside the id, codes from 1, 0 where missing. repeats: users take
    items again, so a full ranking keeps what they have taken. cold: a full ranking lists the items
    of the judged split alone, which are in no earlier one. protocol: source, filters, split and
    ranking rules in words; it stands beside every quality number. best: the best attainable test
    value of a metric where it is known (planted data).
    """

    name: str
    train: Split
    valid: Split
    test: Split
    fields: Mapping[str, int]
    protocol: str
    best: Mapping[str, float] = field(default_factory=dict)
    numeric: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    user_features: Mapping[str, Tensor] = field(default_factory=dict)
    item_features: Mapping[str, Tensor] = field(default_factory=dict)
    repeats: bool = False
    cold: bool = False
    ordered: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 (first 16 hex digits) over every row of the three splits, the protocol, the texts
        and the features."""
        state = hashlib.sha256(self.protocol.encode())
        for text in self.texts:
            state.update(b"\0" + text.encode())
        for split in (self.train, self.valid, self.test):
            for column in (*split.inputs, split.labels):
                state.update(np.ascontiguousarray(column.numpy()).data)
        for name, column in (*self.user_features.items(), *self.item_features.items()):
            state.update(name.encode())
            state.update(column.numpy().data)
        return state.hexdigest()[:16]


@dataclass(frozen=True)
class Asynchronous:
    """Training by `workers` processes and a server that applies their gradients as they come.

    A worker may begin a step when it is at most `staleness` steps ahead of the slowest. With 0 the
    workers go in rounds, and a round's gradients are applied one by one in the order of workers.
    """

    workers: int
    staleness: int


@dataclass(frozen=True)
class Recipe:
    """How a baseline is trained. Times and sizes are per run; rates are per step.

    epochs: 0 for a model that is complete when built. plateau: what the rate is multiplied by when
    an epoch does not improve the valid metric; `patience` then counts epochs at any rate.
    warmup_steps: steps over which the rate rises linearly from 0. matmul_precision: of float32
    matrix products, as torch.set_float32_matmul_precision takes it; "medium" lets the CPU compute
    them in bfloat16 with float32 sums. embedding_l2, weight_decay: through the gradient for "adam",
    decoupled for "adamw" (Loshchilov and Hutter 2019, arXiv:1711.05101). own_rates: name of a
    submodule → the rate of its parameters, which bear no penalty: for what was trained before.
    contexts: entered around every forward pass and loss (autocast). wraps: applied to the model
    whose forward is trained (for example torch.compile); the parameters stay the model's own.
    sparse_embeddings: embedding gradients are sparse and go to SparseAdam, which leaves the
    moments of untouched rows alone and therefore is not dense Adam. moments: what Adam's are held
    in between steps; SparseAdam's stay float32. scale_loss: the loss is scaled so that small
    gradients do not vanish in float16, and steps whose gradients overflow are left out.
    parallel: how several ranks share each batch; asynchronous: how workers take batches in turn;
    None for one process.
    """

    optimiser: Literal["adam", "adamw"] = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    plateau: float = 1.0
    warmup_steps: int = 0
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    batch_size: int = 1024
    epochs: int = 10
    patience: int = 2
    weight_decay: float = 0.0
    embedding_l2: float = 0.0
    own_rates: Mapping[str, float] = field(default_factory=dict)
    clip_norm: float | None = 10.0
    sparse_embeddings: bool = False
    moments: Literal["float32", "bfloat16"] = "float32"
    scale_loss: bool = False
    contexts: tuple[Callable[[], AbstractContextManager[object]], ...] = ()
    wraps: tuple[Callable[[nn.Module], nn.Module], ...] = ()
    asynchronous: Asynchronous | None = None
    parallel: Parallel | None = None


@dataclass(frozen=True)
class Rules:
    """Under which rules a split was scored: numbers under different ones do not compare.

    data: the source, filters and split in words. split: the digest of the rows judged. candidates:
    what was ranked, "full" or, for example, "sampled-100"; "" where nothing was. ties: what equal
    scores count as. catalogue: how many items there are to be listed.
    """

    data: str
    split: str
    candidates: str = ""
    ties: str = ""
    catalogue: int = 0


@dataclass(frozen=True)
class Scored:
    """What a predictor said of a split, one row per example or per (user, relevant item).

    columns: the arrays that the task's metrics read, of n rows each, [n] or [n, k]. unit: int64
    [n], the resampling unit of each row: the example for CTR, the user for retrieval.
    segments: name → int64 [n]. rules: None where they are not known.
    """

    columns: Mapping[str, np.ndarray]
    unit: np.ndarray
    segments: Mapping[str, np.ndarray] = field(default_factory=dict)
    rules: Rules | None = None

    def where(self, mask: np.ndarray) -> Scored:
        """The rows where `mask` (bool [n]) holds."""
        return Scored(
            {name: column[mask] for name, column in self.columns.items()},
            self.unit[mask],
            {name: column[mask] for name, column in self.segments.items()},
            self.rules,
        )

    def require_comparable(self, other: Scored) -> None:
        """Raises LeanRecError where a difference of metrics of the two would mean nothing."""
        if self.rules == other.rules and np.array_equal(self.unit, other.unit):
            return
        mine, its = (vars(rules) if rules else {} for rules in (self.rules, other.rules))
        parts = [name for name in mine | its if mine.get(name) != its.get(name)] or ["rows"]
        told = "; ".join(f"{n} {mine.get(n, '?')!r} against {its.get(n, '?')!r}" for n in parts)
        raise LeanRecError(
            f"Two results were scored under different rules: {told}.",
            "Their difference would say nothing of the models.",
            "Score both on the same split, with the same candidates and tie rule.",
        )


class QualityMetric(ABC):
    """One quality metric: its name, unit, direction, and how to compute it."""

    name: str  # of the class, or of an object whose parameters are in its name
    unit: str = ""
    direction: ClassVar[Direction] = "higher"

    @abstractmethod
    def __call__(self, scored: Scored, weight: np.ndarray | None = None) -> float:
        """The metric over `scored`; `weight` (float64 [n]) counts each row so many times.

        NaN where it is not defined (no rows, one class only).
        """


class Task(ABC):
    """What a recommender is trained and judged for."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def metrics(self) -> tuple[QualityMetric, ...]:
        """The quality metrics, the primary one first."""

    @abstractmethod
    def batches(
        self, data: Dataset, batch_size: int, generator: torch.Generator, device: torch.device
    ) -> Iterator[Batch]:
        """One epoch of the train split, shuffled: what `loss` takes. The last may be smaller."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean training loss of a batch, a float32 scalar."""

    def share(self, batch: Batch, rank: int, ranks: int) -> tuple[Batch, float]:
        """The rows of a training batch that fall to a rank, and the weight of their loss.

        The mean of weight × loss over the ranks is the loss of the whole batch, where a row's loss
        does not depend on the others. Here every column has one entry a row. A rank to which none
        falls takes the first, with weight 0.
        """
        rows = len(batch[0])
        own = slice(rank, None, ranks) if rank < rows else slice(0, 1)
        part = tuple(column[own] for column in batch)
        return part, ranks * len(part[0]) / rows if rank < rows else 0.0

    @abstractmethod
    def predictor(self, model: nn.Module, data: Dataset) -> nn.Module:
        """What is served: a module from a request to its answer.

        The answer is a tensor, or a tuple whose first element is the tensor of scores.
        """

    @abstractmethod
    def requests(self, data: Dataset, batch_size: int, count: int, seed: int) -> list[Batch]:
        """`count` distinct requests of `batch_size` rows drawn from the test split, on the CPU."""

    @abstractmethod
    def score(
        self, predictor: nn.Module, data: Dataset, split: Split, device: torch.device
    ) -> Scored:
        """The answers of `predictor` over the whole of `split`, in the task's protocol."""


class Baseline(ABC):
    """A reference recommender. Subclass it as a frozen dataclass; its fields are its parameters."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def task(self) -> Task:
        """The task, with its loss."""

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        return Recipe()

    @abstractmethod
    def data(self) -> Dataset:
        """Load, filter and split. Raises LeanRecError where the data cannot be had."""

    @abstractmethod
    def build(self, data: Dataset) -> nn.Module:
        """A freshly initialised model on the CPU. Called with torch's generator already seeded."""


class DataSource(ABC):
    """A data set by name. Subclass it as a frozen dataclass; its fields are its parameters: where
    it lies, what counts as a click, which split. Each method is the data set as one task sees it.

    All raise LeanRecError where the data cannot be had or does not bear that task.
    """

    name: ClassVar[str]

    @abstractmethod
    def ctr(self, history: int = 0) -> Dataset:
        """Impressions with a label of 0 or 1.

        inputs: ids int64 [n, F], counted from 0 in each field; then, where the data has numbers,
        float32 [n, D]; then, with `history` = L > 0, the user's last L items before the row,
        int64 [n, L], left-padded with the cardinality of the item field.
        """

    @abstractmethod
    def retrieval(self) -> Dataset:
        """Positive interactions. inputs: users int64 [n], items int64 [n], both from 0."""

    @abstractmethod
    def sequences(self, length: int) -> Dataset:
        """What each user took in order, and what came next.

        inputs: (history int64 [n, length],), oldest first, left-padded with I, the number of items;
        items: the next item, 0…I−1. A train row is a window: every item in it but the first is a
        target too. fields: {"item": I}.
        """


DATASETS: Registry[DataSource] = Registry("data set", "baselines.data", "leanrec.datasets")
dataset = DATASETS.register

BASELINES: Registry[Baseline] = Registry("baseline", "baselines.models", "leanrec.baselines")
baseline = BASELINES.register


def scores(answer: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The tensor of scores in a predictor's answer."""
    return answer if isinstance(answer, Tensor) else answer[0]
