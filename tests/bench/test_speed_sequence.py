"""The works of sequence models that are timed."""

from __future__ import annotations

import pytest
import torch

from baselines.models.hstu import HSTUBaseline
from baselines.trainer import Trainer
from bench.speed import sequence


@pytest.mark.slow
def test_each_work_has_a_rate_and_a_bare_one() -> None:
    rows = sequence.rows(quick=True)
    assert [row.work for row in rows] == [
        "SASRec training", "hstu training, short histories", "sasrec training, short histories"
    ]  # fmt: skip
    for row in rows:
        assert row.bare is not None
        assert row.ratio is not None
        assert min(row.ours, row.bare, row.ratio) > 0


def test_short_histories_are_mostly_padding_in_their_windows() -> None:
    data = sequence._short_histories(400)
    (history,) = data.train.inputs
    share = (history != data.fields["item"]).double().mean().item()
    assert history.shape[1] == sequence.LENGTH
    assert 0.1 < share < 0.25


def test_batches_of_similar_lengths_hold_little_padding() -> None:
    baseline = HSTUBaseline()
    data = sequence._short_histories(2000)
    trainer = Trainer(
        baseline.build(data), baseline.task, baseline.recipe, torch.device("cpu"), seed=0
    )
    assert 0 < sequence._padding(trainer, data) < 0.2  # of the windows it is four fifths
