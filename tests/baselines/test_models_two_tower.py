"""The two towers and their baseline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.base import BASELINES
from baselines.data.events import Events
from baselines.data.views import retrieval_dataset
from baselines.errors import LeanRecError
from baselines.models.two_tower import Tower, TwoTower, TwoTowerBaseline
from baselines.trainer import Trainer


def test_each_id_has_its_vector() -> None:
    torch.manual_seed(0)
    model = TwoTower(4, 6, 3)
    user, item = model(torch.tensor([3, 0]), torch.tensor([5, 5, 1]))
    assert torch.equal(user, model.user.weight[[3, 0]])
    assert torch.equal(item, model.item.weight[[5, 5, 1]])
    assert torch.equal(item[0], item[1])
    assert not torch.equal(model.user.weight[0], model.user.weight[1])


def test_a_tower_adds_the_mean_of_its_features_vectors_to_that_of_the_id() -> None:
    torch.manual_seed(0)
    features = {"genre": torch.tensor([2, 0, 1]), "year": torch.tensor([0, 3, 3])}
    model = TwoTower(4, 3, 5, item_features=features)
    tower = model.item
    assert isinstance(tower, Tower)
    assert not tower.feature.table.weight.any()
    torch.nn.init.normal_(tower.feature.table.weight)
    table = tower.feature.table.weight  # 3 genres, then 4 years
    expected = tower.id.weight[2] + (table[1] + table[3 + 3]) / 2
    torch.testing.assert_close(model(torch.tensor([0]), torch.tensor([2]))[1][0], expected)
    assert isinstance(model.user, torch.nn.Embedding)


def test_a_category_is_a_feature_of_whom_it_is_constant_for() -> None:
    users, items = np.repeat(np.arange(8), 6), np.tile(np.arange(6), 8)
    categories = {
        "gender": users % 2,
        "genre": np.where(items == 5, -1, items % 3),
        "hour": (users + items) % 4,
        "country": np.zeros(48, np.int64),
    }
    events = Events("toy", "Toy.", users, items, categories=categories)
    data = retrieval_dataset(events, "random 6:2:2")
    assert {name: c.tolist() for name, c in data.user_features.items()} == {"gender": [1, 2] * 4}
    assert {name: c.tolist() for name, c in data.item_features.items()} == {
        "genre": [1, 2, 3, 1, 2, 0]
    }


def test_features_tell_of_items_that_were_never_trained_on() -> None:
    user, film = np.divmod(np.arange(80 * 120), 120)
    likes = (user % 2 == film % 2) & (np.random.default_rng(0).random(len(user)) < 0.3)
    genre = {"genre": np.arange(120) % 2}
    events = Events("toy", "Toy.", user[likes], film[likes], of_items=genre)
    data = retrieval_dataset(events, "cold-items 6:2:2")
    assert data.item_features["genre"].unique().tolist() == [1, 2]

    def ndcg(features: bool) -> float:
        made = TwoTowerBaseline(embedding_dim=8, features=features)
        torch.manual_seed(0)
        model = made.build(data)
        Trainer(model, made.task, made.recipe, torch.device("cpu"), 0).fit(data)
        predictor = made.task.predictor(model, data)
        scored = made.task.score(predictor, data, data.test, torch.device("cpu"))
        return made.task.metrics[0](scored)

    assert ndcg(features=True) > ndcg(features=False) + 0.2


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
