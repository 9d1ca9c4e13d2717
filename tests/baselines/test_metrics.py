"""Quality metrics against scikit-learn, worked cases, and repetition of rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from baselines.base import Scored
from baselines.metrics import (
    CTR_METRICS,
    RETRIEVAL_METRICS,
    CalibrationRatio,
    pessimistic_ranks,
)

METRICS = {metric.name: metric for metric in (*CTR_METRICS, *RETRIEVAL_METRICS)}


def clicks(score: list[float], label: list[int], user: list[int] | None = None) -> Scored:
    rows = len(score)
    columns = {
        "score": np.array(score, dtype=np.float32),
        "label": np.array(label, dtype=np.float32),
        "user": np.array(user if user is not None else [0] * rows, dtype=np.int64),
    }
    return Scored(columns, np.arange(rows))


def ranking(rank: list[float], relevant: list[int], user: list[int]) -> Scored:
    columns = {"rank": np.array(rank), "relevant": np.array(relevant), "user": np.array(user)}
    return Scored(columns, columns["user"])


# Few distinct scores, so that ties are common; weights are bootstrap counts.
rows_of_clicks = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]),
        st.integers(0, 1),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=40,
)


def test_the_primary_metric_comes_first_and_directions_are_declared():
    assert CTR_METRICS[0].name == "auc"
    assert RETRIEVAL_METRICS[0].name == "ndcg@10"
    lower = {name for name, metric in METRICS.items() if metric.direction == "lower"}
    assert lower == {"logloss", "ne", "calibration_error"}


@given(rows_of_clicks)
def test_auc_and_logloss_agree_with_scikit_learn(rows):
    score, label, _, weight = (np.array(column) for column in zip(*rows, strict=True))
    scored = clicks(score, label)
    if weight.sum() == 0:
        assert math.isnan(METRICS["logloss"](scored, weight.astype(float)))
        return
    clipped = np.clip(score.astype(np.float32).astype(np.float64), 1e-7, 1 - 1e-7)
    expected = log_loss(label, clipped, sample_weight=weight, labels=[0, 1])
    assert METRICS["logloss"](scored, weight.astype(float)) == pytest.approx(expected)
    auc = METRICS["auc"](scored, weight.astype(float))
    if len(set(label[weight > 0])) < 2:
        assert math.isnan(auc)
    else:
        assert auc == pytest.approx(roc_auc_score(label, score, sample_weight=weight))


@given(rows_of_clicks)
def test_a_weight_counts_a_row_so_many_times(rows):
    score, label, user, weight = (np.array(column) for column in zip(*rows, strict=True))
    repeated = clicks(*(np.repeat(column, weight) for column in (score, label, user)))
    for metric in CTR_METRICS:
        counted = metric(clicks(score, label, user), weight.astype(float))
        assert counted == pytest.approx(metric(repeated), nan_ok=True), metric.name


@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 3)),
        min_size=1,
        max_size=8,
    )
)
def test_a_weight_counts_a_user_so_many_times(users):
    def table(copies: list[list[int]]) -> Scored:
        columns = [(rank, len(ranks), user) for user, ranks in enumerate(copies) for rank in ranks]
        return ranking(*(list(column) for column in zip(*columns, strict=True)))

    weight = np.concatenate([[float(count)] * len(ranks) for ranks, count in users])
    copies = [ranks for ranks, count in users for _ in range(count)]
    for metric in RETRIEVAL_METRICS:
        counted = metric(table([ranks for ranks, _ in users]), weight)
        expected = metric(table(copies)) if copies else math.nan
        assert counted == pytest.approx(expected, nan_ok=True), metric.name


def test_ties_between_the_classes_count_half():
    assert METRICS["auc"](clicks([0.5, 0.5, 0.5], [1, 0, 0])) == 0.5
    assert METRICS["auc"](clicks([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])) == 0.875


def test_gauc_weighs_users_by_rows_and_leaves_out_users_of_one_class():
    score = [0.9, 0.1, 0.2, 0.8, 0.1, 0.3, 0.7, 0.7]
    label = [1, 0, 1, 0, 0, 0, 1, 1]
    user = [7, 7, 2, 2, 2, 2, 5, 5]
    expected = (2 * 1.0 + 4 * (1 / 3)) / 6
    assert METRICS["gauc_impressions"](clicks(score, label, user)) == pytest.approx(expected)


def test_ne_is_one_for_the_base_rate_and_calibration_error_is_symmetric():
    label = [1, 0, 0, 0]
    assert METRICS["ne"](clicks([0.25] * 4, label)) == pytest.approx(1)
    assert METRICS["calibration_error"](clicks([0.25] * 4, label)) == pytest.approx(0, abs=1e-6)
    twice = METRICS["calibration_error"](clicks([0.5] * 4, label))
    half = METRICS["calibration_error"](clicks([0.125] * 4, label))
    assert twice == pytest.approx(math.log(2))
    assert half == pytest.approx(math.log(2))


def test_the_calibration_ratio_is_what_was_promised_over_what_came():
    ratio = CalibrationRatio()
    assert ratio(clicks([0.5] * 4, [1, 0, 0, 0])) == pytest.approx(2)
    assert ratio(clicks([0.5, 0.25], [1, 0]), np.array([1.0, 2.0])) == pytest.approx(1)
    assert math.isnan(ratio(clicks([0.5], [0])))


def test_a_certain_mistake_costs_a_finite_logloss():
    assert METRICS["logloss"](clicks([0.0, 1.0], [1, 0])) == pytest.approx(-math.log(1e-7))


@pytest.mark.parametrize("metric", CTR_METRICS, ids=lambda metric: metric.name)
def test_click_metrics_are_undefined_without_rows_or_finite_scores(metric):
    assert math.isnan(metric(clicks([], [])))
    assert math.isnan(metric(clicks([0.1, 0.9], [0, 1]), np.zeros(2)))
    assert math.isnan(metric(clicks([0.1, math.nan], [0, 1])))
    assert math.isnan(metric(clicks([0.1, math.inf], [0, 1])))


@pytest.mark.parametrize("name", ["auc", "ne", "gauc_impressions"])
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_value(name, label):
    assert math.isnan(METRICS[name](clicks([0.1, 0.9], [label, label])))


def test_ranking_metrics_of_a_worked_case():
    # User 3 finds 2 of 3 relevant items, at places 1 and 4; user 8 finds none, the best at 20.
    scored = ranking([1, 4, 11, 20], [3, 3, 3, 1], [3, 3, 3, 8])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    expected = (1 + 1 / math.log2(5)) / ideal
    assert METRICS["ndcg@10"](scored) == pytest.approx(expected / 2)
    assert METRICS["hr@10"](scored) == 0.5
    assert METRICS["recall@10"](scored) == pytest.approx(1 / 3)
    assert METRICS["mrr"](scored) == pytest.approx((1 + 1 / 20) / 2)


def test_the_ideal_of_ndcg_ends_at_the_tenth_place():
    perfect = ranking(list(range(1, 26)), [25] * 25, [0] * 25)
    assert METRICS["ndcg@10"](perfect) == pytest.approx(1)
    assert METRICS["recall@10"](perfect) == pytest.approx(0.4)


@given(st.integers(0, 2**32 - 1))
def test_ndcg_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    relevance = rng.random((3, 30)) < 0.4
    relevance[:, 0] = True
    score = rng.random((3, 30))
    user, item = np.nonzero(relevance)
    rank = (score >= score[user, item][:, None, None]).sum(2)[np.arange(len(user)), user]
    scored = ranking(rank, relevance.sum(1)[user], user)
    assert METRICS["ndcg@10"](scored) == pytest.approx(ndcg_score(relevance, score, k=10))


@pytest.mark.parametrize("metric", RETRIEVAL_METRICS, ids=lambda metric: metric.name)
def test_ranking_metrics_are_undefined_without_users(metric):
    assert math.isnan(metric(ranking([], [], [])))
    assert math.isnan(metric(ranking([1], [1], [0]), np.zeros(1)))


def pairs(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows, items = mask.nonzero(as_tuple=True)
    return rows, items


@given(st.integers(0, 2**32 - 1))
def test_ranks_equal_those_of_counting_one_by_one(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-2, 3, (4, 9), generator=generator).float()
    odd = torch.randint(0, 12, (4, 9), generator=generator)
    scores[odd == 0], scores[odd == 1], scores[odd == 2] = math.nan, -math.inf, math.inf
    role = torch.randint(0, 3, (4, 9), generator=generator)
    seen, relevant = pairs(role == 1), pairs(role == 2)
    shuffle = torch.randperm(len(relevant[0]), generator=generator)
    relevant = relevant[0][shuffle], relevant[1][shuffle]

    def at_least(row: int, other: int, item: int) -> bool:
        a, b = scores[row, other].item(), scores[row, item].item()
        lowest = math.isnan(b) or b == -math.inf
        return lowest or (not math.isnan(a) and a >= b)

    expected = [
        sum(at_least(row, other, item) for other in range(9) if role[row, other] != 1)
        for row, item in zip(*(index.tolist() for index in relevant), strict=True)
    ]
    assert pessimistic_ranks(scores, seen, relevant).tolist() == expected


def test_equal_scores_and_nans_rank_last_whatever_their_ids():
    none = (torch.empty(0, dtype=torch.int64),) * 2
    every = (torch.zeros(5, dtype=torch.int64), torch.arange(5))
    assert pessimistic_ranks(torch.zeros(1, 5), none, every).tolist() == [5] * 5
    scores = torch.tensor([[math.nan, 3.0, math.nan, 1.0, 2.0]])
    assert pessimistic_ranks(scores, none, every).tolist() == [5, 1, 5, 3, 2]
    assert pessimistic_ranks(scores, none, none).tolist() == []


def test_a_seen_item_leaves_the_list_and_the_other_relevant_items_stay():
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0]], dtype=torch.bfloat16)
    seen = (torch.tensor([0, 0]), torch.tensor([0, 0]))  # named twice, gone once
    relevant = (torch.tensor([0, 0]), torch.tensor([3, 1]))
    assert pessimistic_ranks(scores, seen, relevant).tolist() == [3, 1]
