"""What the sequence baselines have in common: their data, their recipe, what is told of windows."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.base import DATASETS, Baseline, Dataset, Recipe
from baselines.tasks.sequence import Objective, Sequence


@dataclass(frozen=True)
class SequenceBaseline(Baseline):
    """Windows of each user's items in order, by Adam with β₂ = .98.

    dataset: a data source's spec. length: of histories, in items. lr, batch_size, epochs,
    patience: see Recipe. Matrix products are of medium precision.
    """

    dataset: str = "ml-100k"
    length: int = 50
    embedding_dim: int = 64
    dropout: float = 0.2
    lr: float = 1e-3
    batch_size: int = 128
    epochs: int = 200
    patience: int = 20

    @property
    def recipe(self) -> Recipe:
        """Adam."""
        return Recipe(
            lr=self.lr,
            betas=(0.9, 0.98),
            matmul_precision="medium",
            batch_size=self.batch_size,
            epochs=self.epochs,
            patience=self.patience,
        )

    def data(self) -> Dataset:
        """The windows of `dataset`."""
        return DATASETS.make(self.dataset).sequences(self.length)


@dataclass(frozen=True)
class NextItemBaseline(SequenceBaseline):
    """Trained to tell the next item at every place. objective, negatives: see the task."""

    objective: Objective = "full-ce"
    negatives: int = 1024

    @property
    def task(self) -> Sequence:
        """The next item at every place of a window."""
        return Sequence(self.objective, self.negatives)
