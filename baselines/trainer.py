"""Training: single steps, seeded epochs, early stopping with the best weights kept on disk."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from io import FileIO
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from baselines.base import Batch, Dataset, Direction, Recipe, Split, Task
from baselines.errors import LeanRecError

CHECK_EVERY = 100  # steps between two looks at the loss, each of which waits for the device
CHUNK = 2**20  # elements moved at a time between a tensor and the file of best weights


class NonFiniteLoss(RuntimeError):  # noqa: N818 - the condition is the name
    """Training diverged: the loss or a weight is no longer a finite number."""


@dataclass(frozen=True)
class Epoch:
    """samples_seen: training rows so far. valid: the primary metric. seconds: of training alone."""

    samples_seen: int
    train_loss: float
    valid: float
    seconds: float


@dataclass(frozen=True)
class History:
    """How a training went. best: the number (from 0) of the epoch whose weights were kept."""

    metric: str
    direction: Direction
    epochs: Sequence[Epoch]
    best: int

    def samples_to(self, target: float) -> int | None:
        """Training rows seen when the valid metric first reached `target`; None if it never did."""
        sign = 1 if self.direction == "higher" else -1
        reached = (e.samples_seen for e in self.epochs if sign * e.valid >= sign * target)
        return next(reached, None)


class Trainer:
    """Trains `model` in place, by Adam, for a task.

    `recipe.embedding_l2` = λ adds λ/2·‖E‖² of the embedding tables to the loss and
    `recipe.weight_decay` the same of all other parameters, both through the gradient (Adam's own
    weight_decay, which is not AdamW's). Clipping is by the norm over all gradients.

    With `recipe.sparse_embeddings`, tables are trained by SparseAdam, which differs from dense
    Adam: the moments of rows that a batch does not touch neither decay nor move the row. No array
    of a table's size is then made except the table's two moments.

    Raises LeanRecError for sparse embeddings with an L2 penalty, which is dense by nature.
    """

    def __init__(
        self, model: nn.Module, task: Task, recipe: Recipe, device: torch.device, seed: int
    ) -> None:
        if recipe.sparse_embeddings and recipe.embedding_l2:
            raise LeanRecError(
                "sparse_embeddings and embedding_l2 exclude each other.",
                "The penalty's gradient touches every row of a table.",
                "Set embedding_l2 to 0, or train the embeddings densely.",
            )
        self.model = model.to(device)
        self.task, self.recipe, self.device, self.seed = task, recipe, device, seed
        self._forward = reduce(lambda m, wrap: wrap(m), recipe.wraps, self.model)
        self._order = torch.Generator().manual_seed(seed)
        self.optimisers = self._optimisers()
        self.model.train()

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        tables: dict[int, nn.Parameter] = {}
        for module in self.model.modules():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.weight.requires_grad:
                module.sparse = self.recipe.sparse_embeddings
                tables[id(module.weight)] = cast(nn.Parameter, module.weight)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        others = [p for p in trained if id(p) not in tables]
        groups = [(others, self.recipe.weight_decay)]
        optimisers: list[torch.optim.Optimizer] = []
        if self.recipe.sparse_embeddings and tables:
            optimisers.append(torch.optim.SparseAdam(list(tables.values()), lr=self.recipe.lr))
        else:
            groups.append((list(tables.values()), self.recipe.embedding_l2))
        dense = [{"params": p, "weight_decay": decay} for p, decay in groups if p]
        if dense:
            optimisers.append(torch.optim.Adam(dense, lr=self.recipe.lr, fused=True))
        return optimisers

    def batches(self, split: Split) -> Iterator[Batch]:
        """The next epoch's batches, on the device. The n-th call depends on the seed alone."""
        return self.task.batches(split, self.recipe.batch_size, self._order, self.device)

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step. Returns the loss before it: float32 scalar, detached, on the device.

        Does not wait for the device, except that SparseAdam does.
        """
        with ExitStack() as stack:
            for context in self.recipe.contexts:
                stack.enter_context(context())
            loss = self.task.loss(self._forward, batch)
        loss.backward()
        if self.recipe.clip_norm is not None:
            _clip(self.model.parameters(), self.recipe.clip_norm)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        return loss.detach()

    def fit(self, data: Dataset, on_epoch: Callable[[Epoch], None] | None = None) -> History:
        """Train until the valid primary metric has not improved for `recipe.patience` epochs.

        Leaves the model with the weights of its best epoch, in evaluation mode. Deterministic for
        a seed (on one device with one number of threads); the global generator is left as found.
        Calls `on_epoch` after each epoch.

        Raises NonFiniteLoss where training diverges; LeanRecError where the train or valid split
        is empty, the valid metric is undefined or the disk is full.
        """
        for name, split in (("train", data.train), ("valid", data.valid)):
            if not len(split):
                raise LeanRecError(
                    f"The {name} split of {data.name} is empty.",
                    "Nothing can be trained.",
                    "Use more data, or filters that leave some.",
                )
        metric = self.task.metrics[0]
        sign = 1 if metric.direction == "higher" else -1
        epochs: list[Epoch] = []
        best = 0
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), tempfile.TemporaryFile(buffering=0) as weights:
            torch.manual_seed(self.seed)
            for number in range(self.recipe.epochs):
                epochs.append(self._epoch(number, data, epochs))
                if on_epoch is not None:
                    on_epoch(epochs[-1])
                if number == 0 or sign * epochs[-1].valid > sign * epochs[best].valid:
                    best = number
                    _save(self._tensors(), weights)
                elif number - best >= self.recipe.patience:
                    break
            if best != len(epochs) - 1:
                _restore(self._tensors(), weights)
        self.model.eval()
        return History(metric.name, metric.direction, tuple(epochs), best)

    def _epoch(self, number: int, data: Dataset, before: list[Epoch]) -> Epoch:
        self.model.train()
        start = time.perf_counter()
        total, steps = torch.zeros((), device=self.device), 0
        for batch in self.batches(data.train):
            total += self.step(batch)
            steps += 1
            if steps % CHECK_EVERY == 0:
                self._require_finite(total, number, steps)
        self._require_finite(total, number, steps)
        seconds = time.perf_counter() - start
        seen = (before[-1].samples_seen if before else 0) + len(data.train)
        return Epoch(seen, total.item() / steps, self._valid(data, number, steps), seconds)

    def _valid(self, data: Dataset, number: int, steps: int) -> float:
        predictor = self.task.predictor(self.model, data)
        metric = self.task.metrics[0]
        value = metric(self.task.score(predictor, data, data.valid, self.device))
        if not math.isfinite(value):
            for tensor in self._tensors():
                self._require_finite(tensor.sum(), number, steps)
            raise LeanRecError(
                f"The metric {metric.name} is not defined on the valid split of {data.name}.",
                "No best epoch can be chosen.",
                "Give a valid split that holds both clicks and non-clicks, or relevant items.",
            )
        return value

    def _require_finite(self, value: Tensor, number: int, steps: int) -> None:
        if not math.isfinite(value.item()):
            raise NonFiniteLoss(
                f"The loss was not finite by step {steps} of epoch {number + 1} "
                f"(lr {self.recipe.lr:g}, batch {self.recipe.batch_size})."
            )

    def _tensors(self) -> Iterator[Tensor]:
        return chain(self.model.parameters(), self.model.buffers())


def _clip(parameters: Iterator[nn.Parameter], largest: float) -> None:
    """Scale all gradients so that their joint 2-norm is at most `largest`; sparse ones too."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
                gradients.append(parameter.grad.values())
            else:
                gradients.append(parameter.grad)
    scale = (largest / (torch.nn.utils.get_total_norm(gradients) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)


def _chunks(tensor: Tensor) -> Sequence[Tensor]:
    """Views that together cover `tensor`."""
    return tensor.detach().view(-1).split(CHUNK) if tensor.is_contiguous() else [tensor.detach()]


def _bytes(host: Tensor) -> memoryview:
    return host.reshape(-1).view(torch.uint8).numpy().data


def _save(tensors: Iterator[Tensor], file: FileIO) -> None:
    """Write the tensors' bytes: a copy on disk, because one in memory would double the tables."""
    try:
        file.seek(0)
        for chunk in chain.from_iterable(map(_chunks, tensors)):
            rest = _bytes(chunk.cpu())
            while rest:  # an unbuffered write may stop short
                rest = rest[file.write(rest) :]
    except OSError as error:
        raise LeanRecError(
            f"The best weights cannot be kept in {tempfile.gettempdir()}: {error.strerror}.",
            "The training was stopped.",
            "Free space there, or set TMPDIR to a folder that has some.",
        ) from error


def _restore(tensors: Iterator[Tensor], file: FileIO) -> None:
    """Read back what `_save` wrote, in place."""
    file.seek(0)
    for chunk in chain.from_iterable(map(_chunks, tensors)):
        host = torch.empty(chunk.shape, dtype=chunk.dtype)
        file.readinto(_bytes(host))
        chunk.copy_(host)
