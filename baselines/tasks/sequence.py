"""Sequence: what a user takes next, judged by a full ranking of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.base import Batch, Dataset, QualityMetric, Scored, Split, Task
from baselines.errors import LeanRecError
from baselines.metrics import RETRIEVAL_METRICS
from baselines.metrics.ranks import top
from baselines.tasks.ranking import TOP, ByQuery, Pairs, full_ranking, full_rules
from baselines.tasks.sampling import draw_requests

ANSWER = 100  # items in an answer
GROUPS = 8  # of histories of similar length, ranked one after another
MASK = -1  # stands for an item that is to be told

Objective = Literal["full-ce", "sampled-softmax", "bce", "gbce", "cloze"]


class NextItem(nn.Module):
    """What is served: the state after a history against the vectors of all items, made beforehand.

    Where the model reads an `nn.Embedding`, the index is a view of it and takes no memory. What
    the user has taken is not removed from the answer. mask: put MASK after the history.
    """

    index: Tensor

    def __init__(self, model: nn.Module, items: int, mask: bool = False) -> None:
        super().__init__()
        table = getattr(model, "item", None)
        if not (isinstance(table, nn.Module) and callable(getattr(model, "encode", None))):
            raise LeanRecError(
                f"{type(model).__name__} has no submodule 'item' or no method 'encode'.",
                "The task serves the state of a history over an index of items.",
                "Give the model both: item ids → vectors, histories → states.",
            )
        self.model: Any = model
        self.mask = mask
        device = next((t.device for t in (*model.parameters(), *model.buffers())), None)
        with torch.no_grad():
            if isinstance(table, nn.Embedding):
                index = table.weight.detach()[:items]
            else:
                index = table(torch.arange(items, device=device))
        self.register_buffer("index", index)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """history: int64 [B, L]. Returns the scores of all I items, float32 [B, I], and the ids of
        the best ANSWER items, best first, int64 [B, min(ANSWER, I)]."""
        if self.mask:
            asked = history.new_full((history.shape[0], 1), MASK)
            history = torch.cat((history[:, 1:], asked), dim=1)
        last = self.model.encode(history)[:, -1]
        all_scores = (last @ self.index.T).float()
        return all_scores, top(all_scores, ANSWER)[1]


@dataclass(frozen=True)
class Sequence(Task):
    """For models with a submodule `item` from ids to vectors, a method `encode` from histories
    [B, L] to states [B, L, d], and a forward pass from (histories, ids) to both, of all items
    where no ids are given; the score of an item is the inner product of its vector and the state.
    Positions count from the right, so leading columns of padding may be cut off.

    "full-ce": cross-entropy over all items. "sampled-softmax": over the target and `negatives`
    items drawn uniformly, shared by the batch; a negative that is the position's own target is
    left out. "bce": binary cross-entropy of the target and of one item drawn for it, as Kang and
    McAuley 2018 train SASRec. "gbce": the same of `negatives` shared items, the target's
    probability raised to β = α(t(1 − 1/α) + 1/α), where α is the share of items drawn and t is
    `calibration`: Petrov and Macdonald, "gSASRec", RecSys 2023, arXiv:2308.07192. "cloze": each
    item is hidden with probability `hidden`, one of each window at least, and told from both
    sides by cross-entropy over all items: Sun et al., "BERT4Rec", CIKM 2019, arXiv:1904.06690.

    A training batch is (histories [B, L], places [T], targets [T]) and negatives [N] or [T] where
    the objective draws some, and α [1] for gBCE. places: of what is trained, in the flattened
    histories.
    """

    name = "sequence"

    objective: Objective = "full-ce"
    negatives: int = 256
    calibration: float = 0.75
    hidden: float = 0.2

    @property
    def metrics(self) -> tuple[QualityMetric, ...]:
        """nDCG@10 first."""
        return RETRIEVAL_METRICS

    def batches(
        self, data: Dataset, batch_size: int, generator: torch.Generator, device: torch.device
    ) -> Iterator[Batch]:
        """Every window once, with fresh negatives or masks.

        Windows of similar length share a batch, cut to its longest, and batches come in random
        order. Each holds about as many real items as `batch_size` windows do on average, so that
        every item weighs about the same.
        """
        split, pad = data.train, data.fields["item"]
        (histories,) = split.inputs
        nexts = torch.cat((histories[:, 1:], split.items[:, None]), dim=1)
        told = nexts if self.objective == "cloze" else histories
        lengths = (told != pad).sum(1)
        for rows in _similar(lengths, batch_size, generator):
            cut = told.shape[1] - int(lengths[rows].max())
            history, following = told[rows, cut:], nexts[rows, cut:]
            trained = history != pad
            if self.objective == "cloze":
                chance = torch.rand(history.shape, generator=generator).masked_fill(~trained, 2)
                trained = (chance < self.hidden) | (chance == chance.amin(1, keepdim=True))
                history = history.masked_fill(trained, MASK)
            places = trained.flatten().nonzero().squeeze(1)
            batch = [history, places, following.flatten()[places]]
            if self.objective in ("sampled-softmax", "gbce", "bce"):
                count = len(places) if self.objective == "bce" else self.negatives
                batch.append(torch.randint(pad, (count,), generator=generator))
            if self.objective == "gbce":
                batch.append(torch.tensor([self.negatives / max(pad - 1, 1)]).clamp(max=1))
            yield tuple(t.to(device, non_blocking=True) for t in batch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of the trained positions, computed in float32 from the model's vectors."""
        history, places, targets, *drawn = batch
        if not drawn:
            states, vectors = model(history)
            states = states.flatten(0, 1)[places]
            return functional.cross_entropy((states @ vectors.T).float(), targets)
        negatives = drawn[0]
        states, vectors = model(history, torch.cat((targets, negatives)))
        states, vectors = states.flatten(0, 1)[places].float(), vectors.float()
        positive, negative = vectors.split((len(targets), len(negatives)))
        own = (states * positive).sum(1)
        if self.objective == "bce":
            other = (states * negative).sum(1).masked_fill(negatives == targets, -torch.inf)
            return (functional.softplus(-own) + functional.softplus(other)).mean()
        others = (states @ negative.T).float()
        others = others.masked_fill(targets[:, None] == negatives, -torch.inf)
        if self.objective == "gbce":
            alpha = drawn[1]
            beta = alpha * (self.calibration * (1 - 1 / alpha) + 1 / alpha)
            total = beta * functional.softplus(-own) + functional.softplus(others).sum(1)
            return total.mean() / (len(negatives) + 1)
        # log(1 + Σ exp(other − own)): the softmax over the target and the negatives
        return functional.softplus(others.logsumexp(1) - own).mean()

    def share(self, batch: Batch, rank: int, ranks: int) -> tuple[Batch, float]:
        """Every rank's windows with the positions that are trained in them; the weight is by
        positions. Negatives are shared, unless each is drawn for one position."""
        history, places, targets, *drawn = batch
        length = history.shape[1]
        row, column = places // length, places % length
        own = row % ranks == rank
        weight = ranks * int(own.sum()) / len(places)
        if weight:
            part = (history[rank::ranks], row[own] // ranks * length + column[own], targets[own])
        else:
            own = torch.arange(1, device=places.device)
            part = (history[row[own]], column[own], targets[own])
        return (*part, *(d[own] if self.objective == "bce" else d for d in drawn)), weight

    def predictor(self, model: nn.Module, data: Dataset) -> NextItem:
        """`model` over an index of all its items.

        Raises LeanRecError where the model does not give both.
        """
        cloze = self.objective == "cloze"
        return NextItem(model.eval(), data.fields["item"], mask=cloze).eval()

    def requests(self, data: Dataset, batch_size: int, count: int, seed: int) -> list[Batch]:
        """Histories of the test split."""
        return draw_requests(data.test.inputs, batch_size, count, seed)

    def score(
        self, predictor: nn.Module, data: Dataset, split: Split, device: torch.device
    ) -> Scored:
        """Full ranking; one row per row of `split`, in order.

        Columns: rank (from 1, ties pessimistic), relevant (1), user (the row's number: each row is
        a list of its own), top (int64 [n, 10], the list's first items). What the user took before
        is removed from the ranking, however long ago, unless the data has `repeats`; of earlier
        rows of this split, what its history holds. The next item itself always
        stays. The unit is the user.
        """
        items = data.fields["item"]
        (histories,) = split.inputs
        lengths = (histories != items).sum(1)
        seen = _taken(data, split)
        count = len(split)
        rank = torch.empty(count, dtype=torch.int64)
        best = torch.empty(count, min(TOP, items), dtype=torch.int64)
        for rows in lengths.argsort(stable=True).chunk(GROUPS):
            cut = histories.shape[1] - max(int(lengths[rows].max()), 1)
            asked, wanted = (histories[rows, cut:],), split.items[rows]
            found = full_ranking(
                predictor, asked, items, partial(_of_rows, seen, rows), partial(_one_each, wanted),
                device,
            )  # fmt: skip
            rank[rows], best[rows] = found.rank, found.top
        return Scored(
            {
                "rank": rank.numpy(),
                "relevant": np.ones(count, np.int64),
                "user": np.arange(count),
                "top": best.numpy(),
            },
            split.users.numpy(),
            {name: column.numpy() for name, column in split.segments.items()},
            full_rules(data, split),
        )


def _of_rows(seen: Callable[[Tensor], Pairs], rows: Tensor, numbers: Tensor) -> Pairs:
    return seen(rows[numbers])


def _one_each(wanted: Tensor, numbers: Tensor) -> Pairs:
    return torch.arange(len(numbers)), wanted[numbers]


def _taken(data: Dataset, split: Split) -> Callable[[Tensor], Pairs]:
    """From rows of `split` (int64 [n]) to the pairs (place, item) of what the user took before."""
    pad = data.fields["item"]
    (histories,) = split.inputs
    empty = torch.empty(0, dtype=torch.int64)
    if data.repeats:
        return lambda rows: (empty, empty)
    users, items = [], []
    for earlier in takewhile(lambda s: s is not split, (data.train, data.valid)):
        taken = torch.cat((earlier.inputs[0], earlier.items[:, None]), dim=1)
        row, column = (taken != pad).nonzero().unbind(1)
        users.append(earlier.users[row])
        items.append(taken[row, column])
    before = ByQuery(torch.cat([empty, *users]), torch.cat([empty, *items]))

    def pairs(rows: Tensor) -> Pairs:
        asked, place = split.users[rows].unique(return_inverse=True)
        # A user may have several rows; what he took belongs to each of them.
        first = torch.searchsorted(before.queries, asked)
        count = (torch.searchsorted(before.queries, asked, right=True) - first)[place]
        long_ago = torch.arange(len(rows)).repeat_interleave(count)
        within = torch.arange(len(long_ago)) - (count.cumsum(0) - count)[long_ago]
        recent, column = (histories[rows] != pad).nonzero().unbind(1)
        row = torch.cat((long_ago, recent))
        item = torch.cat(
            (before.items[first[place][long_ago] + within], histories[rows[recent], column])
        )
        stays = item != split.items[rows[row]]
        return row[stays], item[stays]

    return pairs


def _similar(lengths: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of similar length, in random order, of about `batch_size` mean lengths together."""
    shuffled = torch.randperm(len(lengths), generator=generator)
    order = shuffled[lengths[shuffled].argsort(stable=True)]
    number = (lengths[order].cumsum(0) - 1) // max(1, int(batch_size * lengths.double().mean()))
    parts = order.split(number.unique_consecutive(return_counts=True)[1].tolist())
    for part in torch.randperm(len(parts), generator=generator).tolist():
        yield parts[part]
