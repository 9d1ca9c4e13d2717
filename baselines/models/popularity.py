"""Popularity: every user gets the items that most users took. The floor of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from baselines.base import DATASETS, Baseline, Dataset, Recipe, baseline
from baselines.tasks.retrieval import Retrieval


class Popularity(nn.Module):
    """An item's score is the number of its interactions. Equal counts tie."""

    count: Tensor

    def __init__(self, taken: Tensor, items: int) -> None:
        """taken: int64 [interactions], the item of each."""
        super().__init__()
        self.register_buffer("count", taken.bincount(minlength=items).float())

    def scores(self, users: Tensor) -> Tensor:
        """Ids int64 [B] to the scores of all items, float32 [B, I]."""
        return self.count.repeat(len(users), 1)


@baseline("popularity")
@dataclass(frozen=True)
class PopularityBaseline(Baseline):
    """Items by their number of interactions in the train split. dataset: a data source's spec."""

    dataset: str = "ml-100k"

    @property
    def task(self) -> Retrieval:
        """Retrieval."""
        return Retrieval()

    @property
    def recipe(self) -> Recipe:
        """Complete when built."""
        return Recipe(epochs=0)

    def data(self) -> Dataset:
        """Interactions of users with items."""
        return DATASETS.make(self.dataset).retrieval()

    def build(self, data: Dataset) -> Popularity:
        """The counts of the train split."""
        return Popularity(data.train.items, data.fields["item"])
