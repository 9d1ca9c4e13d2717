"""Asynchronous training: worker processes give gradients, and this process, the server, applies
them as they come.

Source: stale synchronous parallel, Ho et al., "More Effective Distributed ML via a Stale
Synchronous Parallel Parameter Server", NIPS 2013. Workers read the weights in shared memory
without a lock, as in Recht et al., "Hogwild!", NIPS 2011.
"""

from __future__ import annotations

import dataclasses
import shutil
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.base import Asynchronous, Batch, Dataset, Recipe, Task
from baselines.errors import LeanRecError
from baselines.spawned import Spawned
from baselines.trainer import Epoch, History, Trainer

SHARED = Path("/dev/shm")  # where Linux keeps shared memory


def make_trainer(
    model: nn.Module, task: Task, recipe: Recipe, device: torch.device, seed: int
) -> Trainer:
    """The trainer that `recipe` asks for. Raises LeanRecError as the trainers do."""
    kind = AsynchronousTrainer if recipe.asynchronous else Trainer
    return kind(model, task, recipe, device, seed)


class Slot:
    """A gradient of one weight in shared memory, where a worker puts it and the server finds it.

    Of a table, only the rows that are not zero cross over, with their numbers.
    """

    def __init__(self, weight: Tensor, table: bool) -> None:
        self.values = torch.empty_like(weight).share_memory_()
        self.rows = torch.empty(len(weight), dtype=torch.int64).share_memory_() if table else None

    def put(self, gradient: Tensor | None) -> int:
        """Write `gradient`, dense or sparse; returns how many rows of it, −1 for None."""
        if gradient is None:
            return -1
        if self.rows is None:
            self.values.copy_(gradient)
            return len(self.values) if self.values.dim() else 1
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
        else:
            rows = gradient.any(1).nonzero().squeeze(1)
            values = gradient.index_select(0, rows)
        self.rows[: len(rows)].copy_(rows)
        self.values[: len(rows)].copy_(values)
        return len(rows)

    def take(self, count: int, sparse: bool) -> Tensor | None:
        """The gradient that was put, which returned `count`; valid until the next `put`."""
        if count < 0:
            return None
        if self.rows is None:
            return self.values
        rows, values = self.rows[:count], self.values[:count]
        if sparse:
            return torch.sparse_coo_tensor(
                rows[None], values, self.values.shape, is_coalesced=True, check_invariants=False
            )
        return torch.zeros_like(self.values).index_copy_(0, rows, values)


@dataclasses.dataclass
class Worker:
    """A worker as the server sees it.

    clock: steps of it that were applied since all were idle. read_at: updates that the weights had
    seen when it was last given a batch. random: the state of its generator.
    """

    process: Spawned
    slots: Sequence[Slot]
    random: Tensor | None
    idle: bool = True
    clock: int = 0
    read_at: int = 0


class AsynchronousTrainer(Trainer):
    """Trains by several processes on shared weights: `recipe.asynchronous` says how many.

    Workers take the batches in order, each the next one when it is free. What is applied is the
    same as in `Trainer` (rate, clipping, penalties), once a gradient. With staleness 0 the weights
    rest while gradients are computed, so results depend on the seed alone, batch norms' running
    statistics with several workers excepted; and one worker gives, to the bit, what `Trainer`
    does. Otherwise they depend on the order in which processes are run, and a step may read
    weights of which a part has been updated.

    Workers start at the first step, with this process's number of threads shared among them, and
    end with `close` or with this object. Raises LeanRecError for a device other than the CPU.
    """

    def __init__(
        self, model: nn.Module, task: Task, recipe: Recipe, device: torch.device, seed: int
    ) -> None:
        assert recipe.asynchronous is not None
        if device.type != "cpu":
            raise LeanRecError(
                f"Asynchronous training on {device.type} is not there.",
                "Its workers share the memory of the host.",
                "Train on cpu.",
            )
        super().__init__(model, task, recipe, device, seed)
        self.how: Asynchronous = recipe.asynchronous
        self._workers: list[Worker] = []
        self._random: list[Tensor | None] = [None] * self.how.workers
        self._updates, self._stale, self._stalest = 0, 0, 0
        self._tables = {
            id(m.weight): m.sparse
            for m in model.modules()
            if isinstance(m, (nn.Embedding, nn.EmbeddingBag))
        }
        weakref.finalize(self, _end, self._workers)

    def step(self, batch: Batch, last: bool = False) -> Tensor:
        """Hand `batch` to a worker, and apply gradients until a worker may take the next one.

        Once all are at work, that is one update a call. Returns the sum of the losses of what was
        applied. Raises LeanRecError where a worker has ended; the others have then ended too.
        """
        if not self._workers:
            self._start()
        free = self._free()
        assert free is not None
        free.idle, free.read_at = False, self._updates
        total = torch.zeros(())
        try:
            free.process.send([column.numpy() for column in batch])
            while self._free() is None:
                total += self._advance()
        except LeanRecError:
            self.close()
            raise
        return total

    def settle(self) -> Tensor:
        """Wait until all workers are idle, and apply what they give."""
        total = torch.zeros(())
        while not all(w.idle for w in self._workers):
            total += self._advance()
        for worker in self._workers:
            worker.clock = 0
        return total

    def close(self) -> None:
        """End the workers; a later step starts new ones."""
        _end(self._workers)

    def fit(
        self,
        data: Dataset,
        on_epoch: Callable[[Epoch], None] | None = None,
        checkpoints: Path | None = None,
    ) -> History:
        """As `Trainer.fit`; the history tells how stale the gradients were. No worker is left."""
        try:
            history = super().fit(data, on_epoch, checkpoints)
        finally:
            self.close()
        return dataclasses.replace(
            history,
            mean_staleness=self._stale / max(self._updates, 1),
            max_staleness=self._stalest,
        )

    def _free(self) -> Worker | None:
        """The worker that takes the next batch; None while none may."""
        slowest = min(w.clock for w in self._workers)
        idle = [w for w in self._workers if w.idle]
        first = min(idle, key=lambda w: w.clock, default=None)
        return first if first and first.clock - slowest <= self.how.staleness else None

    def _advance(self) -> Tensor:
        """Wait for a gradient and apply it; without staleness, for all that are under way."""
        busy = [w for w in self._workers if not w.idle]
        if self.how.staleness:
            ready = wait([w.process.connection for w in busy])
            busy = [w for w in busy if w.process.connection in ready]
        given = [w.process.receive() for w in busy]
        total = torch.zeros(())
        for worker, (loss, counts, random) in zip(busy, given, strict=True):
            for parameter, slot, count in zip(self._trained, worker.slots, counts, strict=True):
                parameter.grad = slot.take(count, self._tables.get(id(parameter), False))
            self.update()
            stale = self._updates - worker.read_at
            self._updates += 1
            self._stale, self._stalest = self._stale + stale, max(self._stalest, stale)
            worker.idle, worker.clock, worker.random = True, worker.clock + 1, random
            total += loss
        return total

    def _start(self) -> None:
        count = self.how.workers
        sizes = sum(p.numel() * p.element_size() for p in self._trained)
        _require_shared_memory(sizes * (1 + count))
        self.model.share_memory()
        threads = max(1, torch.get_num_threads() // count)
        for number, random in enumerate(self._random):
            slots = [Slot(p.detach(), id(p) in self._tables) for p in self._trained]
            process = Spawned(
                f"Worker {number} of the asynchronous training", _work,
                self.model, self.task, self.recipe, self.seed + number, threads, slots, random,
            )  # fmt: skip
            self._workers.append(Worker(process, slots, random))

    def _state(self, epochs: list[Epoch]) -> tuple[dict[str, Any], dict[str, Any]]:
        progress, state = super()._state(epochs)
        progress["staleness"] = self._updates, self._stale, self._stalest
        state["workers"] = [worker.random for worker in self._workers]
        return progress, state

    def _restore(self, progress: dict[str, Any], state: dict[str, Any]) -> None:
        super()._restore(progress, state)
        self._updates, self._stale, self._stalest = progress["staleness"]
        self._random = state["workers"]


def _work(
    connection: Connection,
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    seed: int,
    threads: int,
    slots: Sequence[Slot],
    random: Tensor | None,
) -> None:
    """A worker's life: a batch in, gradients out."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    if random is not None:
        torch.set_rng_state(random)
    trainer = Trainer(model, task, recipe, torch.device("cpu"), seed)
    weights = [p for p in model.parameters() if p.requires_grad]
    while True:
        batch = connection.recv()
        loss = trainer.gradient(tuple(map(torch.from_numpy, batch))).item()
        counts = [slot.put(p.grad) for slot, p in zip(slots, weights, strict=True)]
        model.zero_grad()
        connection.send((loss, counts, torch.get_rng_state()))


def _end(workers: list[Worker]) -> None:
    for worker in workers:
        worker.process.close()
    workers.clear()


def _require_shared_memory(size: int) -> None:
    if SHARED.is_dir() and shutil.disk_usage(SHARED).free < size:
        raise LeanRecError(
            f"Asynchronous training needs {size / 2**20:.0f} MiB of shared memory, more than "
            f"{SHARED} has left.",
            "Nothing was trained.",
            "Give it more (docker run --shm-size), or use fewer workers.",
        )
