"""BPR-MF, LightGCN, item-kNN and popularity against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.base import BASELINES, Rules, Scored
from baselines.errors import LeanRecError
from baselines.metrics import LIST_METRICS, GroupGap
from baselines.metrics.rankings import HitRate
from baselines.metrics.ranks import best_items, pessimistic_ranks
from baselines.models.bpr_mf import BPRMF
from baselines.models.item_knn import ItemKNN
from baselines.models.lightgcn import Graph, LightGCN
from baselines.models.popularity import Popularity

USERS = torch.tensor([0, 0, 1, 1, 1, 2, 2])
ITEMS = torch.tensor([0, 1, 0, 1, 2, 2, 3])


def test_bpr_mf_scores_by_product_and_item_bias() -> None:
    model = BPRMF(3, 5, 4)
    torch.nn.init.normal_(model.item.weight)
    user, item = model(torch.tensor([2]), torch.arange(5))
    vectors, bias = model.item.weight[:, :-1], model.item.weight[:, -1]
    torch.testing.assert_close((user @ item.T)[0], vectors @ model.user.table.weight[2] + bias)


def test_lightgcn_is_the_mean_of_layers_over_the_normalised_graph() -> None:
    model = LightGCN(3, 4, Graph(USERS, ITEMS, 3, 4), embedding_dim=5, layers=2)
    adjacency = torch.zeros(7, 7)
    adjacency[USERS, ITEMS + 3] = adjacency[ITEMS + 3, USERS] = 1
    scale = adjacency.sum(1).rsqrt()
    smooth = scale[:, None] * adjacency * scale
    table = model.embedding.weight.detach().clone().requires_grad_()
    expected = (table + smooth @ table + smooth @ smooth @ table) / 3
    user, item = model(torch.arange(3), torch.arange(4))
    torch.testing.assert_close(torch.cat((user, item)), expected)
    torch.cat((user, item)).square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(model.embedding.weight.grad, table.grad)
    model.eval()
    torch.testing.assert_close(torch.cat((model.user.weight, model.item.weight)), expected)


def test_item_knn_sums_the_cosines_of_what_the_user_took() -> None:
    scores = ItemKNN(USERS, ITEMS, 4, 4, k=4, shrink=1.0).scores(torch.tensor([2, 3, 0]))
    took = np.zeros((4, 4))
    took[USERS, ITEMS] = 1
    both, norm = took.T @ took, np.sqrt(took.sum(0))
    similarity = both / (np.outer(norm, norm) + 1)
    np.fill_diagonal(similarity, 0)
    np.testing.assert_allclose(scores, (took @ similarity)[[2, 3, 0]], rtol=1e-5)


def test_popularity_counts_interactions() -> None:
    assert Popularity(ITEMS, 5).scores(torch.tensor([1, 1])).tolist() == [[2, 2, 2, 1, 0]] * 2


@pytest.mark.parametrize("name", ["item-knn", "popularity"])
def test_untrained_baselines_are_complete_when_built(name: str) -> None:
    made = BASELINES.make(f'{name}(dataset="planted(rows=4000, ids=100, users=50)")')
    data = made.data()
    predictor = made.task.predictor(made.build(data), data)
    scored = made.task.score(predictor, data, data.test, torch.device("cpu"))
    assert made.recipe.epochs == 0
    assert made.task.metrics[0](scored) > 0.1
    assert all(np.isfinite(metric(scored)) for metric in made.task.metrics)


def test_long_lists_are_searched_exactly() -> None:
    scores = torch.stack([torch.randperm(5003) for _ in range(3)]).float()
    scores[1, :7] = torch.nan
    expected = scores.nan_to_num(nan=-torch.inf).topk(10).indices
    assert torch.equal(best_items(scores, 10), expected)
    none = (torch.empty(0, dtype=torch.int64),) * 2
    wanted = (torch.tensor([0, 2, 2]), torch.tensor([4, 9, 5002]))
    own = scores[wanted]
    assert torch.equal(pessimistic_ranks(scores, none, wanted), 5003 - own.long())


def lists(top: list[list[int]], rules: Rules | None = None) -> Scored:
    count = np.array([8.0, 4, 2, 1])
    top_array, users = np.array(top), np.arange(len(top))
    columns = {
        "user": users, "top": top_array, "profile_popularity": np.full(len(top), 3.0),
        "top_popularity": np.where(top_array < 0, np.nan, count[top_array]),
        "rank": np.array([1.0, 11.0])[: len(top)], "relevant": np.ones(len(top)),
    }  # fmt: skip
    rules = rules or Rules("d", "s", "full", "against the item", 4)
    return Scored(columns, users, {"group": users}, rules)


def test_list_metrics_of_a_worked_case() -> None:
    scored = lists([[0, 1], [0, -1]])
    found = {metric.name: metric(scored) for metric in LIST_METRICS}
    assert found["coverage@10"] == 0.5
    assert found["gini@10"] == pytest.approx((1 * 1 + 3 * 2) / (4 * 3))  # counts 0 0 1 2
    assert found["popularity@10"] == pytest.approx((6 + 8) / 2)
    assert found["popularity_lift@10"] == pytest.approx(7 / 3 - 1)
    alone = {m.name: m(scored, np.array([0.0, 3.0])) for m in LIST_METRICS}
    assert alone["coverage@10"] == 0.25
    assert alone["gini@10"] == pytest.approx(0.75)
    assert all(np.isnan(m(scored, np.zeros(2))) for m in LIST_METRICS)


def test_the_gap_is_between_the_best_and_the_worst_group() -> None:
    scored = lists([[0, 1], [0, -1]])
    assert GroupGap(HitRate(), "group")(scored) == 1.0
    assert np.isnan(GroupGap(HitRate(), "age")(scored))
    assert np.isnan(GroupGap(HitRate(), "group")(scored, np.array([1.0, 0.0])))


def test_results_under_other_rules_are_not_compared() -> None:
    full = lists([[0, 1]])
    full.require_comparable(lists([[1, 2]]))
    sampled = lists([[0, 1]], Rules("d", "s", "sampled-100", "against the item", 4))
    with pytest.raises(LeanRecError, match="candidates 'full' against 'sampled-100'"):
        full.require_comparable(sampled)
    with pytest.raises(LeanRecError, match="different rules: rows"):
        full.require_comparable(lists([[0, 1], [0, 2]]))
