"""Training: single steps, seeded epochs, early stopping with the best weights kept on disk."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.base import Batch, Dataset, Direction, Recipe, Task
from baselines.checkpoint import Checkpoint
from baselines.errors import LeanRecError
from baselines.optimisers import make_optimisers
from baselines.parallel import team_for
from baselines.steps import clip, matmul_precision, with_last

CHECK_EVERY = 100  # steps between two looks at the loss, each of which waits for the device
SEED_STRIDE = 1_000_003  # between the seeds of two ranks' dropout


class NonFiniteLoss(RuntimeError):  # noqa: N818 - the condition is the name
    """Training diverged: the loss or a weight is no longer a finite number."""


@dataclass(frozen=True)
class Epoch:
    """samples_seen: training rows so far. train_loss: the mean over its steps, 0 where it has none.
    valid: the primary metric. seconds: of training alone."""

    samples_seen: int
    train_loss: float
    valid: float
    seconds: float


@dataclass(frozen=True)
class History:
    """How a training went. best: the number (from 0) of the epoch whose weights were kept.

    mean_staleness, max_staleness: updates by others between a worker's reading of the weights and
    the update by its gradient, where the training was asynchronous.
    """

    metric: str
    direction: Direction
    epochs: Sequence[Epoch]
    best: int
    mean_staleness: float = 0.0
    max_staleness: int = 0

    def samples_to(self, target: float) -> int | None:
        """Training rows seen when the valid metric first reached `target`; None if it never did."""
        sign = 1 if self.direction == "higher" else -1
        reached = (e.samples_seen for e in self.epochs if sign * e.valid >= sign * target)
        return next(reached, None)


class Trainer:
    """Trains `model` in place, by Adam or AdamW, for a task.

    `recipe.embedding_l2` = λ adds λ/2·‖E‖² of the embedding tables to the loss and
    `recipe.weight_decay` the same of all other parameters. "adam" takes both through the gradient;
    "adamw" decays by lr·λ beside it. Clipping is by the norm over all gradients.

    With `recipe.sparse_embeddings`, tables are trained by SparseAdam, which differs from dense
    Adam: the moments of rows that a batch does not touch neither decay nor move the row. No array
    of a table's size is then made except the table's two moments.

    With `recipe.parallel`, this is one of several ranks that go through the same batches, and each
    trains on its share of every one (`Task.share`), so that the gradient that they exchange is that
    of the whole batch. Dropout draws differ between ranks. Batch normalisation sees its rank's rows
    alone, and the first rank's running statistics are kept.

    Raises LeanRecError for sparse embeddings with an L2 penalty, which is dense by nature, and
    for a parallel recipe in a process that is not one of its ranks.
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
        self._team = team_for(recipe.parallel, self.model)
        forward = reduce(lambda m, wrap: wrap(m), recipe.wraps, self._team.model)
        self._forward = self._team.wrap(forward)
        self._order = torch.Generator().manual_seed(seed)
        self._trained = [p for p in self._team.model.parameters() if p.requires_grad]
        self._rate, self._steps = recipe.lr, 0
        self.optimisers = make_optimisers(recipe, self._team)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.scale_loss)
        self._team.model.train()

    def batches(self, data: Dataset) -> Iterator[Batch]:
        """The next epoch's batches, on the device. The n-th call depends on the seed alone."""
        return self.task.batches(data, self.recipe.batch_size, self._order, self.device)

    def step(self, batch: Batch, last: bool = False) -> Tensor:
        """One batch. Returns the loss before the update: float32 scalar, detached, on the device;
        of several ranks, what this one adds to the mean over them.

        Does not wait for the device, except that SparseAdam does. last: of its epoch.
        """
        with self._team.exchange(last) as summed:
            loss = self.gradient(batch)
        if summed:
            self.update(summed)
        return loss

    def gradient(self, batch: Batch) -> Tensor:
        """The loss of a batch, as `step` gives it; adds its gradients to those of the weights."""
        weight = 1.0
        if self._team.ranks > 1:
            batch, weight = self.task.share(batch, self._team.rank, self._team.ranks)
        with matmul_precision(self.recipe.matmul_precision):
            loss = self._loss(batch)
            if weight != 1:
                loss = loss * weight
            self.scaler.scale(loss).backward()
        return loss.detach()

    def update(self, summed: int = 1) -> None:
        """Update by the mean of the gradients of `summed` batches, and clear them."""
        if self._steps < self.recipe.warmup_steps:
            self._set_rate()
        self._steps += summed
        for optimiser in self.optimisers:
            self.scaler.unscale_(optimiser)
        if summed > 1:
            for parameter in self._trained:
                if parameter.grad is not None:
                    parameter.grad /= summed
        if self.recipe.clip_norm is not None:
            clip(self._trained, self.recipe.clip_norm, self._team.norm)
        for optimiser in self.optimisers:
            self.scaler.step(optimiser)
        self.scaler.update()
        self._team.updated(self._trained)
        for optimiser in self.optimisers:
            optimiser.zero_grad()

    def settle(self) -> Tensor:
        """Wait for steps that are still under way; the sum of their losses. Here there are none."""
        return torch.zeros((), device=self.device)

    def close(self) -> None:
        """End what training has started beside itself. Here that is nothing."""

    def kept(self) -> list[Tensor]:
        """What this process holds from step to step beside weights and moments."""
        return self._team.kept()

    def _loss(self, batch: Batch) -> Tensor:
        if not self.recipe.contexts:
            return self.task.loss(self._forward, batch)
        with ExitStack() as stack:
            for context in self.recipe.contexts:
                stack.enter_context(context())
            return self.task.loss(self._forward, batch)

    def _set_rate(self) -> None:
        """The rate of the next step: the plateaus' so far, times the warm-up's share."""
        warm = min(1.0, (self._steps + 1) / max(self.recipe.warmup_steps, 1))
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self._rate * warm * group.get("share", 1.0)

    def fit(
        self,
        data: Dataset,
        on_epoch: Callable[[Epoch], None] | None = None,
        checkpoints: Path | None = None,
    ) -> History:
        """Train until the valid primary metric has not improved for `recipe.patience` epochs.

        Leaves the model with the weights of its best epoch, in evaluation mode. An epoch that does
        not improve multiplies the rate by `recipe.plateau`; training goes on from its last weights,
        not from the best ones. With 0 epochs the model is only validated, as one epoch of 0 rows.
        Deterministic for a seed (on one device with one number of threads); global generators are
        left as found. Calls `on_epoch` after each epoch.

        Of several ranks, the first validates, keeps the best weights and ends with them; what it
        finds, all go by.

        checkpoints: a folder, made if need be, from which a training that was killed goes on when
        called again with the same data, recipe and a model as fresh as the first time; the result
        is the same to the bit. The folder is left for the caller to delete. `on_epoch` does not
        hear of the epochs before. See Checkpoint.

        Raises NonFiniteLoss where training diverges; LeanRecError where the train or valid split
        is empty, the valid metric is undefined or the disk for temporary files is full; OSError
        where `checkpoints` cannot be written.
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
        tensors = [*self.model.parameters(), *self.model.buffers()]
        cuda = [self.device] if self.device.type == "cuda" else []
        kept = Checkpoint(checkpoints, keeps=self._team.rank == 0)
        with torch.random.fork_rng(devices=cuda), kept as checkpoint:
            torch.manual_seed(self.seed + SEED_STRIDE * self._team.rank)
            epochs, best = self._resume(checkpoint, tensors)
            while not self._over(epochs, best):
                number = len(epochs)
                epochs.append(self._epoch(number, data, epochs))
                if number == 0 or sign * epochs[-1].valid > sign * epochs[best].valid:
                    best = number
                    checkpoint.keep_best(number, tensors)
                else:
                    self._rate *= self.recipe.plateau
                    self._set_rate()
                if self._team.agree(checkpoint.due):
                    checkpoint.write(number, tensors, *self._state(epochs))
                if on_epoch is not None:
                    on_epoch(epochs[-1])
            if best != len(epochs) - 1:
                checkpoint.restore_best(tensors)
        self.model.eval()
        return History(metric.name, metric.direction, tuple(epochs), best)

    def _over(self, epochs: list[Epoch], best: int) -> bool:
        since = len(epochs) - 1 - best
        return len(epochs) >= max(self.recipe.epochs, 1) or since >= max(self.recipe.patience, 1)

    def _state(self, epochs: list[Epoch]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What training changes beside the weights: what JSON holds, and what torch saves."""
        progress = {
            "epochs": [dataclasses.asdict(epoch) for epoch in epochs],
            "rate": self._rate,
            "steps": self._steps,
        }
        state: dict[str, Any] = {
            "optimisers": [self._team.state_of(optimiser) for optimiser in self.optimisers],
            "scaler": self.scaler.state_dict(),
            "order": self._order.get_state(),
            "cpu": self._team.gather(torch.get_rng_state()),
        }
        if self.device.type == "cuda":
            state["cuda"] = self._team.gather(torch.cuda.get_rng_state(self.device))
        return progress, state

    def _resume(self, checkpoint: Checkpoint, tensors: list[Tensor]) -> tuple[list[Epoch], int]:
        """Go on from the checkpoint: the epochs so far, and the best."""
        read = checkpoint.read(tensors)
        if read is None:
            return [], 0
        progress, state = read
        self._restore(progress, state)
        return [Epoch(**epoch) for epoch in progress["epochs"]], progress["best"]

    def _restore(self, progress: dict[str, Any], state: dict[str, Any]) -> None:
        """Take over what `_state` gave."""
        self._rate, self._steps = progress["rate"], progress["steps"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            self._team.load(optimiser, saved)
        self.scaler.load_state_dict(state["scaler"])
        self._order.set_state(state["order"])
        self._team.resume(self._steps)
        own = self._team.rank
        torch.set_rng_state(state["cpu"][own].clone())  # torch reads a row's storage from its start
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"][own].clone(), self.device)

    def _epoch(self, number: int, data: Dataset, before: list[Epoch]) -> Epoch:
        if self.recipe.epochs == 0:
            return Epoch(0, 0.0, self._valid(data, number, 0), 0.0)
        self._team.model.train()
        start = time.perf_counter()
        total, steps = torch.zeros((), device=self.device), 0
        for batch, last in with_last(self.batches(data)):
            total += self.step(batch, last)
            steps += 1
            if steps % CHECK_EVERY == 0:
                self._require_finite(self._team.mean(total), number, steps)
        total = self._team.mean(total + self.settle())
        self._require_finite(total, number, steps)
        self._team.settle()
        seconds = time.perf_counter() - start
        seen = (before[-1].samples_seen if before else 0) + len(data.train)
        return Epoch(seen, total.item() / steps, self._valid(data, number, steps), seconds)

    def _valid(self, data: Dataset, number: int, steps: int) -> float:
        return self._team.agree(self._judge(data, number, steps) if self._team.rank == 0 else 0.0)

    def _judge(self, data: Dataset, number: int, steps: int) -> float:
        metric = self.task.metrics[0]
        with matmul_precision(self.recipe.matmul_precision):
            predictor = self.task.predictor(self.model, data)
            value = metric(self.task.score(predictor, data, data.valid, self.device))
        if not math.isfinite(value):
            for tensor in (*self.model.parameters(), *self.model.buffers()):
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
