"""Full ranking: the whole catalogue for each query, in the memory of one block of scores.

A *query* is what one list answers: a user in retrieval, a history in sequence tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from baselines.base import Batch, Dataset, Rules, Split, scores
from baselines.metrics.ranks import best_items, ranks_among

BLOCK = 2**23  # scores held at a time, 32 MB
TOP = 10  # items of a list that are kept for the metrics of lists

Pairs = tuple[Tensor, Tensor]  # (row, item), int64 [n] each


class ByQuery:
    """Items grouped by the query that they belong to, to look up those of a block at once.

    queries, items: int64 [n], in any order. order: int64 [n], the rows sorted by query.
    """

    def __init__(self, queries: Tensor, items: Tensor) -> None:
        self.queries, self.order = queries.sort(stable=True)
        self.items = items[self.order]

    def pairs(self, queries: Tensor) -> Pairs:
        """(row, item) of every item of `queries` (int64 [Q], rising); row < Q, rising."""
        first = torch.searchsorted(self.queries, queries)
        count = torch.searchsorted(self.queries, queries, right=True) - first
        row = torch.arange(len(queries)).repeat_interleave(count)
        within = torch.arange(len(row)) - (count.cumsum(0) - count)[row]
        return row, self.items[first[row] + within]


@dataclass(frozen=True)
class Ranking:
    """rank: int64, one for each relevant pair, in the order of the blocks' pairs, from 1.
    top: int64 [Q, min(TOP, I)], the best listed items of each query, best first; −1 where fewer
    are listed."""

    rank: Tensor
    top: Tensor


def full_ranking(
    predictor: nn.Module,
    queries: Batch,
    items: int,
    seen: Callable[[Tensor], Pairs],
    relevant: Callable[[Tensor], Pairs],
    device: torch.device,
) -> Ranking:
    """Rank all `items` for every query, without what each has seen.

    queries: the predictor's inputs, Q rows each. seen, relevant: from the numbers of a block of
    queries (int64, rising) to its pairs (row within the block, item); disjoint. Ranks as
    `baselines.metrics.pessimistic_ranks` defines them. An answer's second tensor, where it has one,
    is taken for the ids of its highest scores. Holds about BLOCK scores at a time.
    """
    ranks, tops = [torch.empty(0, dtype=torch.int64)], []
    count = len(queries[0])
    with torch.inference_mode():
        for numbers in torch.arange(count).split(max(1, BLOCK // items)):
            start, stop = int(numbers[0]), int(numbers[-1]) + 1
            answer = predictor(*(column[start:stop].to(device) for column in queries))
            hidden, wanted = (
                (row.to(device), item.to(device))
                for row, item in (seen(numbers), relevant(numbers))
            )
            listed = scores(answer).float().contiguous()
            own, kept = listed[wanted], listed[hidden]
            listed[hidden] = -torch.inf
            ranks.append(ranks_among(listed, own, wanted[0], hidden).cpu())
            tops.append(_lists(listed, answer).cpu())
            listed[hidden] = kept  # the predictor may hold what it answered
    empty = torch.empty(0, min(TOP, items), dtype=torch.int64)
    return Ranking(torch.cat(ranks), torch.cat([empty, *tops]))


def _lists(listed: Tensor, answer: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The first items of each row, from the best ones in the answer where those are enough."""
    count = min(TOP, listed.shape[1])
    if isinstance(answer, Tensor) or answer[1].shape[1] < count:
        return best_items(listed, count)
    value, place = listed.gather(1, answer[1]).topk(count)
    items = answer[1].gather(1, place)
    short = ~(value > -torch.inf).all(1) | value.isnan().any(1)
    if short.any():
        items[short] = best_items(listed[short], count)
    return items


def full_rules(data: Dataset, split: Split) -> Rules:
    """Of a ranking by `full_ranking` of all items of `data`, or of those of the split."""
    ties, listed = "against the item", "full, cold items" if data.cold else "full"
    return Rules(data.protocol, split.digest, listed, ties, data.fields["item"])


def list_columns(
    lists: Tensor, queries: Tensor, taken: Pairs, catalogue: int
) -> dict[str, np.ndarray]:
    """What `baselines.metrics.lists` reads of each list, one row a list.

    lists: int64 [Q, k]. queries: int64 [Q], the user of each. taken: (user, item) of the training
    interactions. Returns top [Q, k]; top_popularity [Q, k], how often each of its items was taken
    (NaN where there is none); profile_popularity [Q], the same of what the user took, on average
    (NaN where nothing was).
    """
    users, items = taken
    count = items.bincount(minlength=catalogue).double()
    of_list = count[lists.clamp(min=0)].masked_fill(lists < 0, torch.nan)
    size = int(torch.cat((users, queries)).max()) + 1 if len(queries) else 0
    mean = users.bincount(count[items], size) / users.bincount(minlength=size)
    return {
        "top": lists.numpy(),
        "top_popularity": of_list.numpy(),
        "profile_popularity": mean[queries].numpy(),
    }
