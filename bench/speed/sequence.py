"""Training of sequence models beside plain loops of the same models on padded windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from baselines.base import Dataset
from baselines.data.events import Events
from baselines.data.sequences import sequence_dataset
from baselines.models.hstu import HSTUBaseline
from baselines.models.sasrec import SASRec, SASRecBaseline
from baselines.models.sequences import NextItemBaseline
from baselines.steps import matmul_precision
from baselines.trainer import Trainer
from bench.peers import RECBOLE, TrainingLibrary, training_library
from bench.speed import Goal, Peer, SpeedRow, per_unit, race, rate_peer, rate_row

WORK = "SASRec training"
LENGTH, DIM, BLOCKS, HEADS, DROPOUT, BATCH, RATE = 50, 64, 2, 2, 0.2, 128, 1e-3
PEER_BATCHES = 4  # of 2,048 targets, one window each
SHORT_USERS, SHORT_ITEMS, SHORT_MEAN = 3000, 12_000, 9  # near the shape of Amazon Beauty


def rows(quick: bool = False) -> list[SpeedRow]:
    """Trained targets a second: SASRec by full cross-entropy on MovieLens-100K's windows, then
    HSTU and SASRec by sampled softmax on short histories, of which a window holds mostly padding.

    quick: small planted sequences instead. bare: one optimiser step a batch of randomly drawn
    windows, all `LENGTH` wide, with the model, losses and precision of float32 products of ours.
    """
    return beside(training_library(), quick)


def beside(library: TrainingLibrary | None, quick: bool = False) -> list[SpeedRow]:
    """The rows, the first one's work also by `library`, where there is one."""
    short = _short_histories(200 if quick else SHORT_USERS)
    sasrec = SASRecBaseline(
        length=LENGTH, dropout=0.5, objective="sampled-softmax", temperature=0.05
    )
    pairs = 2 if quick else 4
    return [
        _full(library, quick),
        _of_short(HSTUBaseline(), short, pairs),
        _of_short(sasrec, short, pairs),
    ]


def _full(library: TrainingLibrary | None, quick: bool) -> SpeedRow:
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

    pairs = 2 if quick else 6
    raced = race(ours, bare, pairs)
    peer = Peer(RECBOLE)
    if library is not None:
        with library("SASRec", _settings(), 1 if quick else PEER_BATCHES) as (other, told):
            peer = rate_peer(RECBOLE, 1, per_unit(race(ours, other, pairs), targets, told))
    note = (
        f"{data.name}, d{DIM}, {BLOCKS} layers, {HEADS} heads, histories of {LENGTH}, batch "
        f"{BATCH}, {torch.get_num_threads()} threads; bare: the same model in a plain loop over "
        "padded windows"
    )
    goal = Goal("at least", 30_000, "ours")
    return rate_row(WORK, "targets/s", targets, raced, goal, peer, note)


def _settings() -> dict[str, Any]:
    """The same sizes, loss and split in RecBole's words."""
    return {
        "hidden_size": DIM, "inner_size": DIM, "n_layers": BLOCKS, "n_heads": HEADS,
        "hidden_dropout_prob": DROPOUT, "attn_dropout_prob": DROPOUT, "loss_type": "CE",
        "learning_rate": RATE, "MAX_ITEM_LIST_LENGTH": LENGTH, "train_neg_sample_args": None,
        "eval_args": {
            "split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"
        },
    }  # fmt: skip


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


def _short_histories(users: int) -> Dataset:
    """Random items, in histories of geometric length."""
    rng = np.random.default_rng(0)
    sizes = 2 + rng.geometric(1 / (SHORT_MEAN - 2), users)
    items = rng.integers(0, SHORT_ITEMS, sizes.sum())
    items = np.unique(items, return_inverse=True)[1]  # codes without gaps
    made = Events("random histories", "Random.", np.repeat(np.arange(users), sizes), items)
    return sequence_dataset(made, LENGTH)


def _of_short(baseline: NextItemBaseline, data: Dataset, pairs: int) -> SpeedRow:
    task, recipe, pad = baseline.task, baseline.recipe, data.fields["item"]
    (history,) = data.train.inputs
    following = torch.cat((history[:, 1:], data.train.items[:, None]), dim=1)
    torch.manual_seed(0)
    trainer = Trainer(baseline.build(data), task, recipe, torch.device("cpu"), 0)

    def ours() -> None:
        for batch in trainer.batches(data):
            trainer.step(batch)

    plain = baseline.build(data).train()
    optimiser = torch.optim.Adam(plain.parameters(), recipe.lr, recipe.betas)

    def bare() -> None:
        with matmul_precision(recipe.matmul_precision):
            for rows in torch.randperm(len(history)).split(recipe.batch_size):
                places = (history[rows] != pad).flatten().nonzero().squeeze(1)
                targets = following[rows].flatten()[places]
                negatives = torch.randint(pad, (task.negatives,))
                optimiser.zero_grad()
                task.loss(plain, (history[rows], places, targets, negatives)).backward()
                optimiser.step()

    targets = int((history != pad).sum())
    note = (
        f"{len(history):,} histories of {targets / len(history):.1f} items on average, sampled "
        f"softmax, {torch.get_num_threads()} threads; bare: the same model in a plain loop over "
        f"windows padded to {LENGTH}. In our batches {_padding(trainer, data):.1%} of the places "
        "are padding: all that jagged ones would save"
    )
    work = f"{baseline.name} training, short histories"
    return rate_row(work, "targets/s", targets, race(ours, bare, pairs), note=note)


def _padding(trainer: Trainer, data: Dataset) -> float:
    """The share of padding among the places of an epoch's batches."""
    padded = [histories == data.fields["item"] for histories, *_ in trainer.batches(data)]
    return sum(int(p.sum()) for p in padded) / sum(p.numel() for p in padded)
