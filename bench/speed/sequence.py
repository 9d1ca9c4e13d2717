"""SASRec's training beside a plain loop of the same model on padded windows."""

from __future__ import annotations

import torch
from torch.nn import functional

from baselines.base import Dataset
from baselines.models.sasrec import SASRec, SASRecBaseline
from baselines.steps import matmul_precision
from baselines.trainer import Trainer
from bench.speed import Goal, SpeedRow, race, rate_row

WORK = "SASRec training"
LENGTH, DIM, BLOCKS, HEADS, DROPOUT, BATCH, RATE = 50, 64, 2, 2, 0.2, 128, 1e-3


def rows(quick: bool = False) -> list[SpeedRow]:
    """Trained targets a second, full cross-entropy, on MovieLens-100K's windows.

    quick: planted sequences instead. bare: one optimiser step a batch of randomly drawn windows,
    all `LENGTH` wide, with the model, losses and precision of float32 products of ours.
    """
    dataset = "planted(users=300, ids=200)" if quick else "ml-100k"
    baseline = SASRecBaseline(
        dataset=dataset, length=LENGTH, embedding_dim=DIM, blocks=BLOCKS, heads=HEADS,
        dropout=DROPOUT, lr=RATE, batch_size=BATCH,
    )  # fmt: skip
    data = baseline.data()
    (history,) = data.train.inputs
    targets = int((history != data.fields["item"]).sum())
    torch.manual_seed(0)
    trainer = Trainer(baseline.build(data), baseline.task, baseline.recipe, torch.device("cpu"), 0)

    def ours() -> None:
        for batch in trainer.batches(data):
            trainer.step(batch)

    plain = baseline.build(data)
    optimiser = torch.optim.Adam(plain.parameters(), RATE, baseline.recipe.betas)

    def bare() -> None:
        with matmul_precision(baseline.recipe.matmul_precision):
            _plain_epoch(plain, optimiser, data)

    raced = race(ours, bare, pairs=2 if quick else 6)
    note = (
        f"{data.name}, d{DIM}, {BLOCKS} layers, {HEADS} heads, histories of {LENGTH}, batch "
        f"{BATCH}, {torch.get_num_threads()} threads; bare: the same model in a plain loop over "
        "padded windows"
    )
    goal = Goal("at least", 30_000, "ours")
    return [rate_row(WORK, "targets/s", targets, raced, goal, note=note)]


def _plain_epoch(model: SASRec, optimiser: torch.optim.Optimizer, data: Dataset) -> None:
    (history,) = data.train.inputs
    following = torch.cat((history[:, 1:], data.train.items[:, None]), dim=1)
    following = following.masked_fill(history == data.fields["item"], -100)  # left out of the loss
    model.train()
    for batch in torch.randperm(len(history)).split(BATCH):
        states, vectors = model(history[batch])
        logits = states.flatten(0, 1) @ vectors.T
        optimiser.zero_grad()
        functional.cross_entropy(logits, following[batch].flatten()).backward()
        optimiser.step()
