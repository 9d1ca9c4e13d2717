"""Learning from a stream in its order, and judging on it before it is learned from."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from baselines.base import Dataset, Recipe, Rules, Scored, Split, Task
from baselines.trainer import Trainer
from techniques.asynchronous.double_buffer import Delta, DoubleBuffered

CPU = torch.device("cpu")


def part(rows: Split, start: int, stop: int) -> Split:
    """Some rows of a split, views of it."""
    shown = slice(start, stop)
    inputs = tuple(column[shown] for column in rows.inputs)
    segments = {name: column[shown] for name, column in rows.segments.items()}
    return Split(inputs, rows.labels[shown], rows.users[shown], rows.items[shown], segments)


class Learner:
    """Goes on training `model` on the rows of `data.test`, each once, in their order.

    Rows that are learned at once (see `learn`) are shuffled among themselves.
    """

    def __init__(
        self, model: nn.Module, task: Task, recipe: Recipe, data: Dataset, seed: int
    ) -> None:
        self._trainer = Trainer(model, task, recipe, CPU, seed)
        self._task, self._recipe, self._data = task, recipe, data
        self._predictor = task.predictor(model, data)
        self._order = torch.Generator().manual_seed(seed)
        self.newest = 0

    def learn(self, stop: int) -> None:
        """From the rows between those learned last and row `stop`."""
        window = dataclasses.replace(
            self._data, train=part(self._data.test, self.newest, stop)
        )  # fmt: skip
        self._trainer.model.train()
        for batch in self._task.batches(window, self._recipe.batch_size, self._order, CPU):
            self._trainer.step(batch)
        self.newest = stop

    def changes(self, served: DoubleBuffered) -> Delta:
        """What `served` lacks of what has been learned."""
        return Delta.between(served.serving.state_dict(), self._predictor.state_dict())


def prequential(
    served: nn.Module, learner: Learner | None, task: Task, data: Dataset, period: int
) -> Scored:
    """The answers over the test rows in order, each by weights that have not seen it.

    With a learner, `served` gets new weights after every `period` rows, learned from all before.
    Source: test-then-train, Gama, Sebastião and Rodrigues, "On evaluating stream learning
    algorithms", Machine Learning 90, 2013.
    """
    rows = data.test
    scored: list[Scored] = []
    step = period if learner else len(rows)
    for start in range(0, len(rows), step):
        stop = min(start + step, len(rows))
        scored.append(task.score(served, data, part(rows, start, stop), CPU))
        if learner is not None and stop < len(rows):
            assert isinstance(served, DoubleBuffered)
            learner.learn(stop)
            served.update(learner.changes(served))
    return Scored(
        {name: np.concatenate([s.columns[name] for s in scored]) for name in scored[0].columns},
        np.arange(len(rows)),
        rules=Rules(data.protocol, rows.digest),
    )
