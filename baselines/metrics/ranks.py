"""Ranks and best items in rows of scores, exact, at about the cost of reading the scores."""

from __future__ import annotations

import torch
from torch import Tensor

STRIP = 32  # scores of which one maximum is kept
LANE = 250  # zeros and ones that a byte can add up
LOW = -torch.inf


def pessimistic_ranks(
    scores: Tensor, seen: tuple[Tensor, Tensor], relevant: tuple[Tensor, Tensor]
) -> Tensor:
    """Ranks of relevant items in the full list of each row: int64 [number of relevant pairs].

    scores: [B, I], compared in float32; NaN ranks last. seen, relevant: pairs of index tensors
    (row, item), disjoint; what a row has seen leaves its list, its other relevant items stay.
    rank = the number of listed items with at least the item's score, itself included, so ties
    count against it and the order of ids never matters.
    """
    listed = scores.to(torch.float32, copy=True)
    own = listed[relevant]
    listed[seen] = LOW
    return ranks_among(listed, own, relevant[0], seen)


def ranks_among(listed: Tensor, own: Tensor, row: Tensor, seen: tuple[Tensor, Tensor]) -> Tensor:
    """`pessimistic_ranks` of scores that are -inf where seen: int64 [n].

    listed: float32 [B, I]. own, row: [n], the score of each relevant item and its row.
    """
    order = row.argsort(stable=True)
    counts = row.bincount(minlength=len(listed))
    start = counts.cumsum(0) - counts
    place = torch.arange(len(row), device=row.device) - start[row[order]]  # within its row
    by_place = order[place.argsort(stable=True)]
    rank = torch.empty_like(row)
    for pairs in by_place.split(place.bincount().tolist()):  # at most one pair of each row
        rows = listed if len(pairs) == len(listed) else listed[row[pairs]]
        rank[pairs] = _count(rows >= own[pairs, None])
    last = ~(own > LOW)  # NaN too: all that is listed counts against it
    if last.any():
        hidden = torch.zeros(listed.shape, dtype=torch.bool, device=listed.device)
        hidden[seen] = True
        rank[last] = (~hidden).sum(1)[row[last]]
    return rank


def best_items(listed: Tensor, count: int) -> Tensor:
    """The items of the highest scores of each row, best first: int64 [B, min(count, I)].

    listed: float32 [B, I]. NaN counts as -inf, and −1 stands where a score of -inf would be
    chosen. Which of several equal scores are chosen is not defined.
    """
    value, item = top(listed, count)
    if value.isnan().any():
        value, item = top(listed.nan_to_num(nan=LOW, posinf=torch.inf, neginf=LOW), count)
    return item.masked_fill(value == LOW, -1)


def top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """What ``scores.topk(min(count, I))`` gives, of float32 [B, I], several times faster.

    Only the strips with the highest maxima are searched: items i, i + width, i + 2·width, …
    """
    batch, items = scores.shape
    width = items // STRIP
    if width < 2 * count:
        return scores.topk(min(count, items))
    strips = scores[:, : width * STRIP].view(batch, STRIP, width)
    best = strips.amax(1).topk(count, sorted=False).indices
    step = torch.arange(STRIP, device=scores.device)[:, None] * width
    rest = torch.arange(width * STRIP, items, device=scores.device).expand(batch, -1)
    candidates = torch.cat(((best[:, None] + step).flatten(1), rest), dim=1)
    value, place = scores.gather(1, candidates).topk(count)
    return value, candidates.gather(1, place)


def _count(true: Tensor) -> Tensor:
    """``true.sum(1)`` of bool [B, I]: bytes are added as bytes, 32 at once."""
    batch, items = true.shape
    width = items // LANE
    lanes = true[:, : width * LANE].view(torch.uint8).view(batch, LANE, width)
    return lanes.sum(1, dtype=torch.uint8).sum(1) + true[:, width * LANE :].sum(1)
