"""Rows of embedding tables that training seldom looked up, dropped for one that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.base import Batch
from baselines.errors import LeanRecError
from techniques.base import Change, Context, Requires, Technique, technique
from techniques.pruning.magnitude import Ratio
from techniques.surgery import copy_with, exactly

BLOCK = 8192  # rows of the train split that are looked at together

Counts = Mapping[nn.Embedding, Tensor]


class SharedRowEmbedding(nn.Module):
    """Takes the place of an `nn.Embedding` at inference, with one row for all that were dropped.

    `rows` is a table of its own, so that a technique for tables may follow. Its row 0 is the mean
    of the dropped ones, each as often as it was looked up: of all vectors, the one nearest to
    what was read there. It is zero where none of them was ever read.
    """

    place: Tensor  # int32 [n]: where in `rows` an id's vector stands; 0 for what was dropped

    def __init__(self, weight: Tensor, counts: Tensor, kept: Tensor) -> None:
        """weight: float32 [n, d], read, not kept. counts: int64 [n], look-ups of each row.

        kept: bool [n], which rows stay.
        """
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        weight, seen = weight.detach(), counts.masked_fill(kept, 0)
        share = (seen / seen.sum().clamp(min=1)).to(weight.dtype)
        table = torch.cat(((share @ weight)[None], weight[kept]))
        self.rows = nn.Embedding.from_pretrained(table, freeze=False)
        self.register_buffer("place", (kept.cumsum(0) * kept).to(torch.int32))

    @property
    def weight(self) -> Tensor:
        """The whole table, float32 [n, d], for code that reads an embedding's weight itself."""
        return self.rows.weight[self.place]

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int32 or int64 [...], in 0…n−1. Returns float32 [..., d]."""
        vectors: Tensor = self.rows(self.place.index_select(0, ids.reshape(-1)).view(ids.shape))
        return vectors

    def extra_repr(self) -> str:
        """The sizes, as `nn.Embedding` prints them."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


@technique("prune-rows")
@dataclass(frozen=True)
class PruneRows(Technique):
    """Drop the share `ratio` of the rows of embedding tables, those seldomest looked up.

    Source: McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, section 4.1
    (features of rare occurrence are left out of the model), done here after training. Rows are
    ranked over all tables by how often the train split looks them up, so a small table of
    frequent ids stays whole. Dropped ids share one row of their table, their mean; an index of 4
    bytes an id says where the others went, so rows of d numbers get 1 / (1 − ratio + 1 / d) ×
    smaller. Tables that would not get smaller stay. A look-up reads two tables, so it is slower.
    Expect little loss where ids are skewed; ids without training count as rare. Preparation is a
    forward pass over the train split.
    """

    ratio: Ratio = 0.5
    family = "pruning"
    # Elsewhere an index of all items is served, as long as ever, beside the table or in its place.
    requires = Requires(tasks=frozenset({"ctr"}), modules=(nn.Embedding,))
    changes = frozenset({Change.NUMERICS, Change.SIZE})

    def explain(self, model: nn.Module, context: Context) -> str:
        """How many rows go, and how often requests meet them: are out of vocabulary."""
        kept = most_frequent(_trained(model, context), self.ratio)
        gone, rows = sum(int((~k).sum()) for k in kept.values()), sum(map(len, kept.values()))
        asked = count_lookups(model, context.examples, context.device)
        met = sum(int(count[~kept[table]].sum()) for table, count in asked.items() if table in kept)
        share = met / max(1, sum(int(count.sum()) for count in asked.values()))
        return (
            f"prune-rows: {gone} of {rows} rows become one a table; {share:.1%} of the look-ups of "
            "requests are out of vocabulary"
        )

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        """Replace the tables; the copy shares all other weights with `model`.

        Raises LeanRecError where the context has no train split, or no table gets smaller.
        """
        counts = _trained(model, context)
        kept = most_frequent(counts, self.ratio)
        if not kept:
            raise LeanRecError(
                f"No embedding table gets smaller by losing {self.ratio:.0%} of all rows.",
                "Nothing was pruned.",
                "Raise the ratio, or prune before the techniques that replace tables.",
            )
        return copy_with(
            model, {t: SharedRowEmbedding(t.weight, counts[t], rows) for t, rows in kept.items()}
        )


def _trained(model: nn.Module, context: Context) -> Counts:
    """How often the train split looks up each row."""
    if context.train is None:
        raise LeanRecError(
            "prune-rows was given no train split.",
            "It cannot tell which rows are rare.",
            "Give the Context the split as `train`.",
        )
    columns = (column.split(BLOCK) for column in context.train.inputs)
    return count_lookups(model, zip(*columns, strict=True), context.device)


def count_lookups(model: nn.Module, requests: Iterable[Batch], device: torch.device) -> Counts:
    """How often `model` looks up each row for `requests`: table → int64 [n], on `device`.

    Tables that it never calls are left out: how it reads them, if it does, is not known.
    """
    watched = copy_with(model).eval()
    counts = []
    for table in exactly(watched, nn.Embedding):
        count = torch.zeros(table.num_embeddings, dtype=torch.int64, device=device)
        counts.append(count)

        def note(_: nn.Module, args: tuple[Tensor], count: Tensor = count) -> None:
            count += torch.bincount(args[0].flatten(), minlength=len(count))

        table.register_forward_pre_hook(note)
    with torch.inference_mode():
        for request in requests:
            watched(*(column.to(device) for column in request))
    return {t: c for t, c in zip(exactly(model, nn.Embedding), counts, strict=True) if c.any()}


def most_frequent(counts: Counts, ratio: float) -> Counts:
    """Which rows stay: table → bool [n], of the tables that get smaller by it.

    The share `ratio` of all rows that count least goes; of rows that count the same, the first.
    """
    if not counts:
        return {}
    every = torch.cat(list(counts.values()))
    kept = torch.ones_like(every, dtype=torch.bool)
    kept[every.argsort(stable=True)[: int(ratio * len(every))]] = False
    split = kept.split([len(count) for count in counts.values()])
    return {t: k for t, k in zip(counts, split, strict=True) if _is_smaller(t.weight, k)}


def _is_smaller(weight: Tensor, kept: Tensor) -> bool:
    """Whether the dropped rows take more than the shared one and the index of places."""
    return (int((~kept).sum()) - 1) * weight[0].nbytes > len(kept) * torch.int32.itemsize
