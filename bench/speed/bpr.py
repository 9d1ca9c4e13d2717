"""An epoch of BPR on MovieLens-100K's shape beside a bare loop of the same arithmetic."""

from __future__ import annotations

import torch
from torch.nn import functional

from baselines.data import planted
from baselines.models.bpr_mf import BPRMF, BPRMFBaseline
from baselines.trainer import Trainer
from bench.peers import RECBOLE, TrainingLibrary, training_library
from bench.speed import Goal, Peer, SpeedRow, per_unit, race, time_peer, time_row

USERS, ITEMS, ROWS = 943, 1682, 180_000  # about 71,000 distinct pairs to train on
CPU = torch.device("cpu")


def rows(quick: bool = False) -> list[SpeedRow]:
    """Seconds of an epoch."""
    return beside(training_library(), quick)


def beside(library: TrainingLibrary | None, quick: bool = False) -> list[SpeedRow]:
    """The row; the peer's seconds are for as many interactions as ours."""
    data = planted.interactions(USERS, ITEMS, ROWS // (20 if quick else 1))
    made, users = BPRMFBaseline(), data.train.users
    size = made.recipe.batch_size

    def fresh() -> BPRMF:
        torch.manual_seed(0)
        return BPRMF(USERS, ITEMS)

    trainer = Trainer(fresh(), made.task, made.recipe, CPU, 0)

    def ours() -> None:
        for batch in trainer.batches(data):
            trainer.step(batch)

    model = fresh()
    optimiser = torch.optim.Adam(model.parameters(), lr=made.recipe.lr, fused=True)

    def bare() -> None:
        for batch in torch.randperm(len(users)).split(size):
            user = model.user(users[batch])
            positive = model.item(data.train.items[batch])
            negative = model.item(torch.randint(ITEMS, (len(batch),)))
            loss = -functional.logsigmoid((user * (positive - negative)).sum(1)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    note = (
        f"{len(users)} interactions, d64, batch {size}, {torch.get_num_threads()} threads; bare: "
        "negatives not checked against what the user took, no penalty, no clipping"
    )
    pairs = 2 if quick else 8
    raced, peer = race(ours, bare, pairs), Peer(RECBOLE)
    if library is not None:
        settings = {"embedding_size": made.embedding_dim, "train_batch_size": size}
        with library("BPR", settings, 1 if quick else None) as (other, told):
            raced_peer = per_unit(race(ours, other, pairs), 1, told / len(users))
            peer = time_peer(RECBOLE, raced_peer)
    return [time_row("BPR, an epoch", raced, Goal("at most", 0.07, "ours"), peer, note)]
