"""A trainer in a process of its own, which writes to the copy that does not answer."""

from __future__ import annotations

import dataclasses
import time
from multiprocessing.connection import Connection

import torch
from torch import nn

from baselines.base import Dataset, Recipe, Task
from baselines.spawned import Spawned
from bench.refreshing.learner import Learner
from techniques.asynchronous.double_buffer import DoubleBuffered


@dataclasses.dataclass(frozen=True)
class Written:
    """New weights stand in the copy that does not answer. newest: rows they have learned from.

    begun, ended: when they were written, ns of time.perf_counter_ns, which one host's processes
    share. nbytes: what was carried.
    """

    newest: int
    begun: int
    ended: int
    nbytes: int


class RefreshTrainer:
    """Learns from `data.test` beside this process, on one thread, and gives `served` new weights.

    The weights of `served` move to memory that both processes share. Once `ask` was called, `take`
    gives what was written as soon as it was; `served` answers by it after that. Raises LeanRecError
    where the other process has ended.
    """

    def __init__(
        self,
        served: DoubleBuffered,
        model: nn.Module,
        task: Task,
        recipe: Recipe,
        data: Dataset,
        seed: int,
    ) -> None:
        self.served, self.busy = served.share_memory(), False
        nothing = dataclasses.replace(data, train=data.test, valid=data.test)  # is not sent
        self._process = Spawned(
            "The trainer beside the server", _work, served, model, task, recipe, nothing, seed
        )
        self._process.receive()  # it has started

    def ask(self, stop: int) -> None:
        """Learn from the rows before `stop` that were not learned from yet, then write."""
        self._process.send(stop)
        self.busy = True

    def take(self) -> Written | None:
        """Exchange the copies if new weights are there; None where they are not. Never waits."""
        if not (self.busy and self._process.has_sent):
            return None
        written: Written = self._process.receive()
        self.served.exchange()
        self.busy = False
        return written

    def close(self) -> None:
        """End the process."""
        self._process.close()


def _work(
    connection: Connection,
    served: DoubleBuffered,
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    data: Dataset,
    seed: int,
) -> None:
    torch.set_num_threads(1)
    learner = Learner(model, task, recipe, data, seed)
    connection.send("ready")
    while True:
        learner.learn(connection.recv())
        delta = learner.changes(served)
        begun = time.perf_counter_ns()
        served.write(delta)
        connection.send(Written(learner.newest, begun, time.perf_counter_ns(), delta.nbytes))
        served.exchange()  # the other process does; it asks for nothing before that
