"""Training and evaluation of click models beside plain PyTorch, on random rows shaped as Frappe."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from baselines.base import Dataset, Recipe, Split
from baselines.models.clicks import ClickBaseline
from baselines.models.dcnv2 import DCNv2Baseline
from baselines.models.deepfm import DeepFMBaseline
from baselines.models.layers import FastDropout
from baselines.steps import matmul_precision
from baselines.trainer import Trainer
from bench.peers import FUXICTR, ClickLibrary, ClickPeer, click_library
from bench.speed import Goal, Peer, SpeedRow, race, rate_peer, rate_row, time_peer

CARDINALITIES = (957, 4082, 7, 7, 3, 2, 9, 80, 8, 230)  # near those of Frappe's ten fields
BATCH, STEPS, TEST_ROWS = 4096, 20, 57_722
DIM, WIDTH, DEPTH, DROPOUT, L2, RATE = 10, 400, 3, 0.2, 0.05, 1e-3
CPU = torch.device("cpu")


def rows(quick: bool = False) -> list[SpeedRow]:
    """Samples a second of training, for DeepFM and DCN-V2: the trainer's loop beside a bare loop of
    the same arithmetic; our default beside plain PyTorch; the same in bfloat16. Then evaluation."""
    return beside(click_library(), quick)


def beside(library: ClickLibrary | None, quick: bool = False) -> list[SpeedRow]:
    """The rows, the library's same model in its own loop timed by turns with ours, where there is
    one."""
    pairs = 2 if quick else 6
    steps, test_rows = (2, 5000) if quick else (STEPS, TEST_ROWS)
    data = _data(steps * BATCH, test_rows)
    found: list[SpeedRow] = []
    for kind in (DeepFMBaseline, DCNv2Baseline):
        baseline = kind(
            embedding_dim=DIM, width=WIDTH, depth=DEPTH, dropout=DROPOUT, batch_norm=True,
            embedding_l2=L2, lr=RATE, batch_size=BATCH,
        )  # fmt: skip
        with nullcontext() if library is None else library(baseline, data, 0) as peer:
            found += _training(baseline, data, pairs, peer)
            found.append(_evaluation(baseline, data, pairs, peer))
    return found


def bfloat16() -> AbstractContextManager[object]:
    """Autocast on the CPU."""
    return torch.autocast("cpu", dtype=torch.bfloat16)


def _data(train_rows: int, test_rows: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        columns = [torch.randint(c, (count,), generator=generator) for c in CARDINALITIES]
        labels = torch.rand(count, generator=generator).round()
        return Split((torch.stack(columns, dim=1),), labels, columns[0], columns[1])

    fields = {f"field_{k}": c for k, c in enumerate(CARDINALITIES)}
    return Dataset(
        "random rows", split(train_rows), split(2), split(test_rows), fields, "Random labels."
    )


def _training(
    baseline: ClickBaseline, data: Dataset, pairs: int, peer: ClickPeer | None
) -> list[SpeedRow]:
    default = baseline.recipe
    plain = dataclasses.replace(default, matmul_precision="highest")
    low = dataclasses.replace(default, contexts=(bfloat16,))
    sizes = (
        f"{len(CARDINALITIES)} fields of {DIM}, MLP {WIDTH}×{DEPTH} with batch norm, dropout "
        f"{DROPOUT}, batch {BATCH}, {torch.get_num_threads()} threads"
    )

    def row(what: str, ours: Recipe, bare: Callable[[], None], goal: Goal, note: str) -> SpeedRow:
        epoch, other = _epoch_of_trainer(baseline, data, ours), None
        raced = race(epoch, bare, pairs)
        if goal.of == "peer":
            other = Peer(FUXICTR)
            if peer is not None:
                other = rate_peer(FUXICTR, len(data.train), race(epoch, peer.epoch, pairs))
        return rate_row(
            f"{baseline.name} training, {what}", "samples/s", len(data.train), raced, goal,
            other, f"{sizes}; bare: {note}",
        )  # fmt: skip

    same = _bare_epoch(baseline, data, default)
    slow = _bare_epoch(baseline, data, plain, plain=True)
    twice, four = Goal("at least", 2, "peer"), Goal("at least", 4, "peer")
    return [
        row("loop", default, same, Goal("at least", 0.97), "a loop of the same arithmetic"),
        row("default", default, slow, twice, "plain PyTorch"),
        row("bf16", low, slow, four, "plain PyTorch"),
    ]


def _epoch_of_trainer(baseline: ClickBaseline, data: Dataset, recipe: Recipe) -> Callable[[], None]:
    torch.manual_seed(0)
    trainer = Trainer(baseline.build(data), baseline.task, recipe, CPU, 0)

    def epoch() -> None:
        for batch in trainer.batches(data):
            trainer.step(batch)

    return epoch


def _bare_epoch(
    baseline: ClickBaseline, data: Dataset, recipe: Recipe, plain: bool = False
) -> Callable[[], None]:  # fmt: skip
    """One epoch in the fewest lines, with the recipe's optimiser, penalty and clipping."""
    torch.manual_seed(0)
    model = baseline.build(data)
    if plain:
        _make_plain(model)
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    kept = {id(table) for table in tables}
    others = [p for p in model.parameters() if id(p) not in kept]
    groups: list[dict[str, Any]] = [
        {"params": others},
        {"params": tables, "weight_decay": recipe.embedding_l2},
    ]
    optimiser = torch.optim.Adam(groups, lr=recipe.lr, fused=True)
    (ids,), labels = data.train.inputs, data.train.labels

    def epoch() -> None:
        model.train()
        with matmul_precision(recipe.matmul_precision):
            for picked in torch.randperm(len(ids)).split(recipe.batch_size):
                logits = model(ids[picked])
                loss = functional.binary_cross_entropy_with_logits(logits, labels[picked])
                loss.backward()
                if recipe.clip_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                optimiser.step()
                optimiser.zero_grad()

    return epoch


class _Table(nn.Embedding):
    """A table with torch's own gradient: FieldEmbedding sums that of an `nn.Embedding` itself."""


def _make_plain(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, FastDropout):
                setattr(module, name, nn.Dropout(DROPOUT))
            elif isinstance(child, nn.Embedding):
                setattr(module, name, _Table.from_pretrained(child.weight.detach(), freeze=False))


def _evaluation(
    baseline: ClickBaseline, data: Dataset, repeats: int, peer: ClickPeer | None
) -> SpeedRow:
    """Seconds of scoring the test split and of its AUC."""
    torch.manual_seed(0)
    task, model = baseline.task, baseline.build(data)

    def ours() -> None:
        with matmul_precision(baseline.recipe.matmul_precision):
            scored = task.score(task.predictor(model, data), data, data.test, CPU)
        task.metrics[0](scored)

    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        ours()
        seconds.append(time.perf_counter() - start)
    other = Peer(FUXICTR)
    if peer is not None:
        other = time_peer(FUXICTR, race(ours, peer.evaluate, repeats))
    return SpeedRow(
        f"{baseline.name} evaluation", "s", statistics.median(seconds[1:]),
        goal=Goal("at most", 0.25, "ours"), peer=other,
        note=f"scores and AUC of {len(data.test):,} rows, {torch.get_num_threads()} threads",
    )  # fmt: skip
