"""Drift: popularity moves, its shape and what is no id stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.base import Dataset, Split
from bench.drift import Drift


def data(fields: dict[str, int], *inputs: Tensor) -> Dataset:
    rows = len(inputs[0])
    split = Split(inputs, torch.zeros(rows), torch.zeros(rows).long(), torch.zeros(rows).long())
    return Dataset("made", split, split, split, fields, "made")


def counts(ids: Tensor) -> list[int]:
    return sorted(ids.unique(return_counts=True)[1].tolist())


IDS = torch.stack((torch.arange(60) % 5, torch.arange(60) ** 2 % 7, torch.zeros(60).long()), dim=1)
FIELDS = {"user": 9, "item": 7, "place": 1}


def test_each_field_keeps_its_ids_and_its_shape_and_others_are_popular() -> None:
    numbers = torch.randn(60, 2)
    moved, same = Drift(data(FIELDS, IDS, numbers))((IDS, numbers), 1.0, np.random.default_rng(0))
    assert torch.equal(same, numbers)
    for before, after in zip(IDS.unbind(1), moved.unbind(1), strict=True):
        assert set(after.tolist()) == set(before.tolist())
        assert counts(after) == counts(before)
    assert IDS[:, 1].mode()[0] != moved[:, 1].mode()[0]


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_share_of_the_rows_is_moved(share: float) -> None:
    users = torch.arange(4000) % 6
    drift = Drift(data({"user": 6, "item": 3}, users, users))
    (moved,) = drift((users,), share, np.random.default_rng(0))
    assert float((moved != users).float().mean()) == pytest.approx(share, abs=0.03)


def test_padding_and_masks_of_histories_stay() -> None:
    history = torch.tensor([[8, 8, 0, 1], [8, 2, 2, 2], [8, 8, 8, -1]])
    (moved,) = Drift(data({"item": 8}, history))((history,), 1.0, np.random.default_rng(0))
    outside = (history == 8) | (history == -1)
    assert torch.equal(moved[outside], history[outside])
    assert torch.equal((moved == 8) | (moved == -1), outside)
    assert not (moved == history)[~outside].any()


def test_the_request_itself_stays() -> None:
    before = IDS.clone()
    Drift(data(FIELDS, IDS))((IDS,), 1.0, np.random.default_rng(0))
    assert torch.equal(IDS, before)
