"""The CTR task: its loss, what it serves, what it draws and how it scores."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.base import Dataset, Split
from baselines.data import planted
from baselines.errors import LeanRecError
from baselines.models.dcnv2 import DCNv2
from baselines.tasks import ctr
from baselines.tasks.ctr import CTR

CPU = torch.device("cpu")


class FirstColumn(nn.Module):
    """A model whose logit is the first id, less two."""

    def forward(self, ids: Tensor) -> Tensor:
        return ids[:, 0].to(torch.bfloat16) - 2


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted.ctr(rows=1000, ids=5, fields=3)


def test_the_loss_is_binary_cross_entropy_in_float32() -> None:
    ids, labels = torch.arange(5)[:, None], torch.tensor([0.0, 1, 1, 0, 1])
    loss = CTR().loss(FirstColumn(), (ids, labels))
    p = 1 / (1 + np.exp(-(np.arange(5) - 2.0)))
    y = labels.numpy()
    expected = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_probabilities_are_served_in_float32(data: Dataset) -> None:
    predictor = CTR().predictor(FirstColumn().train(), data)
    answer = predictor(torch.tensor([[0], [2], [100]]))
    assert answer.dtype == torch.float32
    assert not predictor.model.training
    assert answer.tolist() == pytest.approx([1 / (1 + np.e**2), 0.5, 1.0], rel=1e-6)


def test_autocast_still_serves_float32(data: Dataset) -> None:
    predictor = CTR().predictor(DCNv2(list(data.fields.values()), 4, (8,)), data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert predictor(*data.test.inputs).dtype == torch.float32


def test_an_epoch_holds_every_row_once(data: Dataset) -> None:
    def rows_of(seed: int) -> list[tuple[float, ...]]:
        generator = torch.Generator().manual_seed(seed)
        batches = list(CTR().batches(data, 300, generator, CPU))
        assert [len(labels) for _, labels in batches] == [300, 300, 200]
        return [
            (*ids, y) for b in batches for ids, y in zip(b[0].tolist(), b[1].tolist(), strict=True)
        ]

    straight = [
        (*ids, y)
        for ids, y in zip(data.train.inputs[0].tolist(), data.train.labels.tolist(), strict=True)
    ]
    first = rows_of(0)
    assert Counter(first) == Counter(straight)
    assert first == rows_of(0)
    assert first != rows_of(1)
    assert first != straight


@pytest.mark.parametrize("block", [1, 7, 100, 8192])
def test_scores_stand_in_the_order_of_the_rows(
    data: Dataset, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctr, "BLOCK", block)
    task = CTR()
    scored = task.score(task.predictor(FirstColumn(), data), data, data.test, CPU)
    expected = torch.sigmoid(data.test.inputs[0][:, 0].float() - 2)
    np.testing.assert_allclose(scored.columns["score"], expected, rtol=1e-6)
    assert scored.columns["label"].tolist() == data.test.labels.tolist()
    assert scored.columns["user"].tolist() == data.test.users.tolist()
    assert scored.unit.tolist() == list(range(len(data.test)))
    assert set(scored.segments) == {"popularity", "activity"}
    assert all(len(column) == len(data.test) for column in scored.segments.values())


def test_requests_use_every_test_row_before_any_comes_again(data: Dataset) -> None:
    unique = Split(
        (torch.arange(100)[:, None],), data.test.labels, data.test.users, data.test.items
    )
    numbered = Dataset("n", data.train, data.valid, unique, {"id": 100}, "")
    requests = CTR().requests(numbered, 16, 10, seed=3)
    assert [r[0].shape for r in requests] == [(16, 1)] * 10
    drawn = torch.cat([r[0] for r in requests]).flatten()
    assert drawn[:100].unique().numel() == 100
    assert drawn[:100].tolist() != list(range(100))
    assert len({tuple(r[0].flatten().tolist()) for r in requests}) == 10
    again = CTR().requests(numbered, 16, 10, seed=3)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(requests, again, strict=True))
    other = CTR().requests(numbered, 16, 10, seed=4)
    assert not torch.equal(requests[0][0], other[0][0])


def test_requests_keep_the_skew_of_the_ids(data: Dataset) -> None:
    ids = torch.cat([r[0] for r in CTR().requests(data, 4096, 2, seed=0)])[:, 1]
    drawn = ids.bincount(minlength=5) / len(ids)
    true = data.test.inputs[0][:, 1].bincount(minlength=5) / len(data.test)
    torch.testing.assert_close(drawn, true, atol=0.01, rtol=0)


def test_an_empty_test_split_is_said_to_be_empty(data: Dataset) -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    empty = Split((nothing[:, None],), torch.empty(0), nothing, nothing)
    without = Dataset("e", data.train, data.valid, empty, data.fields, "")
    with pytest.raises(LeanRecError, match="test split is empty"):
        CTR().requests(without, 8, 2, seed=0)
    scored = CTR().score(CTR().predictor(FirstColumn(), data), without, empty, CPU)
    assert len(scored.columns["score"]) == 0
