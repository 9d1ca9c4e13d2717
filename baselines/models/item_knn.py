"""Item-based nearest neighbours: items like those that the user took.

Sources: Sarwar et al., "Item-based Collaborative Filtering Recommendation Algorithms", WWW 2001
(cosine over the users that took both); Bell and Koren 2007, "Improved Neighborhood-based
Collaborative Filtering", KDD Cup workshop (shrinkage); settings as in Ferrari Dacrema et al. 2019,
"Are We Really Making Much Progress?", RecSys, arXiv:1907.06902.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from baselines.base import DATASETS, Baseline, Dataset, Recipe, baseline
from baselines.tasks.retrieval import Retrieval

BLOCK = 2**24  # similarities held at a time


class ItemKNN(nn.Module):
    """score(u, i) = Σ over the items j that u took of s(j, i), where s is kept for the items
    nearest to j alone; s(j, i) = |users of both| / (√(|users of j| · |users of i|) + shrink).
    """

    start: Tensor  # int64 [U + 1], where each user's items begin in `taken`
    taken: Tensor  # int64 [interactions]
    near: Tensor  # int64 [I, k], the neighbours of each item
    similarity: Tensor  # float32 [I, k], 0 where there are fewer

    def __init__(
        self, users: Tensor, taken: Tensor, n_users: int, n_items: int, k: int, shrink: float
    ) -> None:
        """users, taken: int64 [interactions], from 0. A pair that comes twice counts once."""
        super().__init__()
        ones = np.ones(len(users), dtype=np.float32)
        pairs = (users.numpy(), taken.numpy())
        by_user = sparse.coo_array((ones, pairs), shape=(n_users, n_items)).tocsr()
        by_user.data[:] = 1
        near, similarity = _neighbours(by_user, min(k, n_items), shrink)
        for name, values in (
            ("start", by_user.indptr.astype(np.int64)),
            ("taken", by_user.indices.astype(np.int64)),
            ("near", near),
            ("similarity", similarity),
        ):
            self.register_buffer(name, torch.from_numpy(values))

    def scores(self, users: Tensor) -> Tensor:
        """Ids int64 [B] to the scores of all items, float32 [B, I]."""
        first = self.start[users]
        count = self.start[users + 1] - first
        row = torch.arange(len(users), device=users.device).repeat_interleave(count)
        within = torch.arange(len(row), device=users.device) - (count.cumsum(0) - count)[row]
        item = self.taken[first[row] + within]
        place = row[:, None] * len(self.near) + self.near[item]
        flat = self.similarity.new_zeros(len(users) * len(self.near))
        flat.index_add_(0, place.flatten(), self.similarity[item].flatten())
        return flat.view(len(users), -1)


def _neighbours(by_user: sparse.csr_array, k: int, shrink: float) -> tuple[np.ndarray, np.ndarray]:
    """The `k` most similar items of each item, and their similarities: [I, k] each."""
    items = by_user.shape[1]
    by_item = by_user.T.tocsr()
    norm = np.sqrt(np.diff(by_item.indptr).astype(np.float64))
    near = np.empty((items, k), dtype=np.int64)
    similarity = np.empty((items, k), dtype=np.float32)
    step = max(1, BLOCK // items)
    for begin in range(0, items, step):
        rows = slice(begin, min(begin + step, items))
        both = (by_item[rows] @ by_user).toarray().astype(np.float64)
        values = both / (np.outer(norm[rows], norm) + shrink + 1e-12)
        own = np.arange(rows.start, rows.stop)
        values[own - begin, own] = 0  # an item is no neighbour of itself
        best = np.argpartition(-values, k - 1, axis=1)[:, :k]
        near[rows] = best
        similarity[rows] = np.take_along_axis(values, best, axis=1)
    return near, similarity


@baseline("item-knn")
@dataclass(frozen=True)
class ItemKNNBaseline(Baseline):
    """Item-based neighbours of the train split. dataset: a data source's spec.

    k: neighbours of an item. shrink: what is added to a similarity's denominator, in users.
    """

    dataset: str = "ml-100k"
    k: int = 300
    shrink: float = 0.0

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

    def build(self, data: Dataset) -> ItemKNN:
        """The neighbours in the train split."""
        return ItemKNN(
            data.train.users, data.train.items, data.fields["user"], data.fields["item"],
            self.k, self.shrink,
        )  # fmt: skip
