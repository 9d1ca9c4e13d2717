"""A whole training of DeepFM, to its best valid AUC, on planted clicks shaped as Frappe."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from baselines.base import Dataset, Recipe, Scored, Split
from baselines.data.draws import zipf
from baselines.data.planted import click_probability
from baselines.models.deepfm import DeepFMBaseline
from baselines.steps import matmul_precision
from baselines.trainer import Trainer
from bench.peers import FUXICTR, ClickLibrary, click_library
from bench.speed import Goal, Peer, SpeedRow, compared, time_peer
from bench.speed.ctr import (
    BATCH,
    CARDINALITIES,
    CPU,
    DEPTH,
    DIM,
    DROPOUT,
    RATE,
    WIDTH,
    bfloat16,
)

SIZES = (202_000, 57_722, 57_722)  # of train, valid and test
EXPONENT = 1.05
SEEDS, SEEDS_BESIDE = 3, 16  # alone, and beside a library: epochs differ more than speed does
L2 = 0.3  # of ten penalties from 1e-5 to 1 by our valid AUC, on which 1 gains .0002
Run = Callable[[int], tuple[float, float]]  # from a seed to seconds and test AUC


def rows(quick: bool = False) -> list[SpeedRow]:
    """Seconds from a fresh model to the end of early stopping, and the test AUC that it gives."""
    return beside(click_library(), quick)


def beside(library: ClickLibrary | None, quick: bool = False) -> list[SpeedRow]:
    """The rows, beside `library` where there is one: the same rows and recipe in its own loop."""
    data = planted_clicks([size // (50 if quick else 1) for size in SIZES])
    baseline = DeepFMBaseline(
        embedding_dim=DIM, width=WIDTH, depth=DEPTH, dropout=DROPOUT, batch_norm=True,
        embedding_l2=L2, lr=RATE, batch_size=BATCH, epochs=2 if quick else 100, plateau=0.1,
    )  # fmt: skip
    low = dataclasses.replace(baseline.recipe, contexts=(bfloat16,))
    runs: dict[str, Run] = {
        "default": lambda seed: _ours(baseline, data, baseline.recipe, seed),
        "bf16": lambda seed: _ours(baseline, data, low, seed),
    }
    if library is not None:
        runs["peer"] = lambda seed: _peer(library, baseline, data, seed)
    seen = _by_turns(runs, 2 if quick else SEEDS if library is None else SEEDS_BESIDE)
    best = data.best["auc"]
    found = []
    for arm in ("default", "bf16"):
        peer = auc_peer = Peer(FUXICTR)
        seconds, auc = zip(*seen[arm], strict=True)
        reached = f"test AUC {statistics.fmean(auc):.4f}"
        if library is not None:
            times, aucs = zip(*seen["peer"], strict=True)
            peer = time_peer(peer.name, compared(list(zip(seconds, times, strict=True))))
            level = compared(list(zip(auc, aucs, strict=True)))
            auc_peer = Peer(
                peer.name, statistics.fmean(aucs), level.ratio, (level.low, level.high)
            )  # fmt: skip
            reached += f", FuxiCTR's {statistics.fmean(aucs):.4f}"
        note = (
            f"{len(data.train):,} planted rows, DeepFM of {WIDTH}×{DEPTH}, batch {BATCH}, the rate "
            f"cut to a tenth where an epoch does not improve and the end after two, {len(auc)} "
            f"seeds, {torch.get_num_threads()} threads; {reached}, of {best:.4f} that there is"
        )
        found += [
            SpeedRow(
                f"deepfm to its best, {arm}", "s", statistics.median(seconds),
                goal=Goal("at most", 0.25, "peer"), peer=peer, note=note,
            ),
            SpeedRow(
                f"deepfm at its best, {arm}", "test AUC", statistics.fmean(auc), best,
                statistics.fmean(auc) / best, goal=Goal("at least", 0.999, "peer"),
                peer=auc_peer, note="bare: the AUC of the true probabilities",
            ),
        ]  # fmt: skip
    return found


def planted_clicks(sizes: Sequence[int]) -> Dataset:
    """Clicks on rows of Zipf ids with Frappe's cardinalities, `sizes` of train, valid and test, by
    the law of `baselines.data.planted.ctr`. best: the test AUC of the true probabilities."""
    rng = np.random.default_rng(0)
    count = sum(sizes)
    ids = np.stack([zipf(count, c, EXPONENT, rng) for c in CARDINALITIES], axis=1)
    truth = click_probability(ids, seed=0)
    labels = (rng.random(count) < truth).astype(np.float32)
    cuts = [0, *itertools.accumulate(sizes)]

    def split(start: int, stop: int) -> Split:
        own = torch.from_numpy(ids[start:stop])
        users, items = own[:, 0].contiguous(), own[:, 1].contiguous()
        return Split((own,), torch.from_numpy(labels[start:stop]), users, items)

    train, valid, test = (split(*pair) for pair in itertools.pairwise(cuts))
    auc = DeepFMBaseline().task.metrics[0]
    known = {"score": truth[cuts[2] :], "label": labels[cuts[2] :], "user": test.users.numpy()}
    fields = {f"field_{k}": c for k, c in enumerate(CARDINALITIES)}
    return Dataset(
        "planted clicks", train, valid, test, fields, f"Planted clicks, rows {sizes}.",
        best={"auc": auc(Scored(known, np.arange(len(test))))},
    )  # fmt: skip


def _by_turns(runs: dict[str, Run], seeds: int) -> dict[str, list[tuple[float, float]]]:
    """What each run gives for each seed; every other seed goes through them backwards."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for seed in range(seeds):
        for name in list(runs)[:: -1 if seed % 2 else 1]:
            seen[name].append(runs[name](seed))
    return seen


def _ours(
    baseline: DeepFMBaseline, data: Dataset, recipe: Recipe, seed: int
) -> tuple[float, float]:
    start = time.perf_counter()
    torch.manual_seed(seed)
    model, task = baseline.build(data), baseline.task
    Trainer(model, task, recipe, CPU, seed).fit(data)
    seconds = time.perf_counter() - start
    with matmul_precision(recipe.matmul_precision):
        scored = task.score(task.predictor(model, data), data, data.test, CPU)
    return seconds, task.metrics[0](scored)


def _peer(
    library: ClickLibrary, baseline: DeepFMBaseline, data: Dataset, seed: int
) -> tuple[float, float]:
    with library(baseline, data, seed) as peer:
        start = time.perf_counter()
        peer.fit()
        return time.perf_counter() - start, peer.evaluate()
