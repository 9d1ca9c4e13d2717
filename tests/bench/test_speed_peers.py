"""Rows beside another library: a stand-in takes its place in tests of the table, and the real ones
run where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
import torch
from rich.console import Console

from baselines.base import Dataset
from baselines.models.clicks import ClickBaseline
from baselines.models.dcnv2 import DCNv2Baseline
from baselines.models.deepfm import DeepFMBaseline
from bench.peers import installed
from bench.speed import (
    Goal,
    Peer,
    Race,
    SpeedRow,
    bpr,
    ctr,
    per_unit,
    rate_peer,
    sequence,
    time_peer,
    to_best,
)
from bench.speed_table import show_speed


class StandIn:
    """A peer that counts its calls and does nothing."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def epoch(self) -> None:
        self.calls.append("epoch")

    def evaluate(self) -> float:
        self.calls.append("evaluate")
        return 0.5

    def fit(self) -> None:
        self.calls.append("fit")


@contextmanager
def stand_in(baseline: ClickBaseline, data: Dataset, seed: int) -> Iterator[StandIn]:
    yield StandIn()


@contextmanager
def second_stand_in(
    model: str, settings: Mapping[str, Any], batches: int | None
) -> Iterator[tuple[Callable[[], object], int]]:
    yield lambda: None, 1000


def test_a_peers_ratio_is_ours_over_it_in_the_rows_measure() -> None:
    raced = Race(ours=1.0, bare=4.0, ratio=0.25, low=0.2, high=0.5)
    assert rate_peer("P", 8.0, raced) == Peer("P", 2.0, 4.0, (2.0, 5.0))
    assert time_peer("P", raced) == Peer("P", 4.0, 0.25, (0.2, 0.5))


def test_work_of_two_sizes_is_compared_by_the_unit() -> None:
    raced = per_unit(Race(ours=1.0, bare=4.0, ratio=0.25, low=0.2, high=0.5), 10, 2)
    assert raced == Race(0.1, 2.0, pytest.approx(0.05), pytest.approx(0.04), pytest.approx(0.1))


def test_the_table_shows_the_peer_and_the_ratio_to_it() -> None:
    shown = StringIO()
    peer = Peer("Other 1.2", 31_000.0, 2.9, (2.7, 3.1))
    row = SpeedRow("work", "x/s", 90_000.0, goal=Goal("at least", 2, "peer"), peer=peer)
    show_speed([row], Console(file=shown, width=200))
    for part in ("Other 1.2 31,000", "2.9 (2.7 to 3.1)", "at least 2 × Other 1.2", "holds"):
        assert part in shown.getvalue()


@pytest.mark.slow
def test_clicks_are_timed_beside_a_peer() -> None:
    rows = ctr.beside(stand_in, quick=True)
    held = [row for row in rows if row.peer is not None]
    assert [row.work for row in held] == [
        f"{name} {work}"
        for name in ("deepfm", "dcnv2")
        for work in ("training, default", "training, bf16", "evaluation")
    ]
    assert all(row.peer and row.peer.ratio and row.peer.interval for row in held)
    assert all(row.verdict for row in held)


@pytest.mark.slow
@pytest.mark.parametrize("library", [None, stand_in])
def test_a_run_to_its_best_stands_beside_what_it_reaches(
    library: to_best.ClickLibrary | None,
) -> None:
    rows = to_best.beside(library, quick=True)
    assert [row.measure for row in rows] == ["s", "test AUC"] * 2
    for row in rows:
        assert row.peer is not None
        assert (row.peer.ratio is None) == (library is None)
        assert bool(row.verdict) == (library is not None)
        assert ("FuxiCTR's" in row.note) == (library is not None and row.measure == "s")
    level = rows[1].peer
    assert level is not None
    assert level.value == (None if library is None else 0.5)


def test_planted_clicks_have_the_sizes_asked_for_and_a_known_best() -> None:
    data = to_best.planted_clicks([3000, 500, 2000])
    assert [len(part) for part in (data.train, data.valid, data.test)] == [3000, 500, 2000]
    assert 0.7 < data.best["auc"] < 0.9
    highest = data.train.inputs[0].max(0).values
    assert (highest < torch.tensor(list(data.fields.values()))).all()


@pytest.mark.slow
def test_pairs_and_sequences_are_timed_beside_a_peer() -> None:
    (pair,) = bpr.beside(second_stand_in, quick=True)
    told = sequence.beside(second_stand_in, quick=True)
    assert [row.peer is not None for row in told] == [True, False, False]
    for row in (pair, told[0]):
        assert row.peer is not None
        assert row.peer.value
        assert row.peer.ratio
        assert row.peer.interval


@pytest.mark.slow
@pytest.mark.skipif(not installed("fuxictr"), reason="fuxictr is not installed")
@pytest.mark.parametrize("kind", [DeepFMBaseline, DCNv2Baseline])
def test_fuxictrs_model_is_of_our_size_and_learns(kind: type[ClickBaseline]) -> None:
    from bench.peers.fuxi import fuxictr

    data = to_best.planted_clicks([20_000, 2000, 2000])
    baseline = kind(embedding_dim=4, width=32, depth=2, batch_size=500, embedding_l2=1e-4, epochs=5)
    torch.manual_seed(0)
    ours = sum(p.numel() for p in baseline.build(data).parameters())
    with fuxictr(baseline, data, 0) as peer:
        assert sum(p.numel() for p in peer.model.parameters()) == pytest.approx(ours, abs=1)
        peer.epoch()
        peer.fit()
        assert peer.evaluate() > 0.65


@pytest.mark.slow
@pytest.mark.skipif(not installed("recbole"), reason="recbole is not installed")
def test_recbole_trains_the_batches_that_are_asked_for() -> None:
    from bench.peers.recbole_models import recbole

    with recbole("BPR", {"embedding_size": 8, "train_batch_size": 512}, 3) as (train, told):
        assert told == 3 * 512
        train()
