"""What the click-through-rate baselines have in common: their data, their sizes, their recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from baselines.base import DATASETS, Baseline, Dataset, Recipe
from baselines.tasks.ctr import CTR


@dataclass(frozen=True)
class ClickBaseline(Baseline):
    """Clicks on the rows of a data set, by Adam with an L2 penalty on the embeddings.

    dataset: a data source's spec. width, depth: of the MLP, with dropout and, if asked for, batch
    normalisation in each layer. embedding_l2, lr, batch_size, epochs, patience, plateau,
    sparse_embeddings: see Recipe. Matrix products are of medium precision.
    """

    dataset: str = "ml-100k"
    embedding_dim: int = 16
    width: int = 256
    depth: int = 2
    dropout: float = 0.0
    batch_norm: bool = False
    embedding_l2: float = 1e-3
    lr: float = 3e-3
    batch_size: int = 1024
    epochs: int = 20
    patience: int = 2
    plateau: float = 1.0
    sparse_embeddings: bool = False

    @property
    def task(self) -> CTR:
        """Binary cross-entropy on clicks."""
        return CTR()

    @property
    def recipe(self) -> Recipe:
        """Adam."""
        return Recipe(
            lr=self.lr,
            batch_size=self.batch_size,
            epochs=self.epochs,
            patience=self.patience,
            plateau=self.plateau,
            embedding_l2=self.embedding_l2,
            sparse_embeddings=self.sparse_embeddings,
            matmul_precision="medium",
        )

    def data(self) -> Dataset:
        """The impressions of `dataset`."""
        return DATASETS.make(self.dataset).ctr()

    def sizes(self, data: Dataset) -> dict[str, Any]:
        """What every click model is built from: its fields, and the sizes of its MLP."""
        return {
            "cardinalities": list(data.fields.values()),
            "embedding_dim": self.embedding_dim,
            "hidden": (self.width,) * self.depth,
            "dropout": self.dropout,
            "batch_norm": self.batch_norm,
            "numbers": len(data.numeric),
        }
