"""The two towers and their baseline."""

from __future__ import annotations

import pytest
import torch

from baselines.base import BASELINES
from baselines.errors import LeanRecError
from baselines.models.two_tower import TwoTower, TwoTowerBaseline
from baselines.trainer import Trainer


def test_each_id_has_its_vector() -> None:
    torch.manual_seed(0)
    model = TwoTower(4, 6, 3)
    user, item = model(torch.tensor([3, 0]), torch.tensor([5, 5, 1]))
    assert torch.equal(user, model.user.weight[[3, 0]])
    assert torch.equal(item, model.item.weight[[5, 5, 1]])
    assert torch.equal(item[0], item[1])
    assert not torch.equal(model.user.weight[0], model.user.weight[1])


@pytest.mark.parametrize("loss", ["sampled-softmax", "bpr"])
def test_it_learns_planted_tastes_better_than_chance(loss: str) -> None:
    made = BASELINES.make(f'two-tower(dataset="planted", loss="{loss}", embedding_dim=16)')
    assert isinstance(made, TwoTowerBaseline)
    data = made.data()
    torch.manual_seed(0)
    model = made.build(data)
    trainer = Trainer(model, made.task, made.recipe, torch.device("cpu"), 0)

    def ndcg() -> float:
        predictor = made.task.predictor(model, data)
        scored = made.task.score(predictor, data, data.test, torch.device("cpu"))
        return made.task.metrics[0](scored)

    chance = ndcg()
    for _ in range(2):
        for batch in trainer.batches(data):
            trainer.step(batch)
    assert chance < 0.05
    assert 0.1 < ndcg() <= data.best["ndcg@10"]


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(LeanRecError, match="loss"):
        BASELINES.make('two-tower(loss="hinge")')
