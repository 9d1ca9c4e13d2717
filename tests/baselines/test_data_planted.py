"""Planted data: the sampler against its law, the known best against what is seen, and memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from baselines.base import Scored
from baselines.data import planted
from baselines.data.draws import normals, uniforms, zipf
from baselines.errors import LeanRecError
from baselines.metrics import CTR_METRICS, RETRIEVAL_METRICS, pessimistic_ranks

AUC = CTR_METRICS[0]


@given(
    st.integers(0, 300),
    st.one_of(st.integers(1, 20), st.integers(1, 2**50)),
    st.one_of(st.just(1.0), st.floats(0, 4)),
    st.integers(0, 2**32 - 1),
)
def test_zipf_ids_are_in_range(count, ids, exponent, seed):
    drawn = zipf(count, ids, exponent, np.random.default_rng(seed))
    assert drawn.shape == (count,)
    assert drawn.dtype == np.int64
    assert ((drawn >= 0) & (drawn < ids)).all()


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.0 + 1e-9, 1.05, 2.5])
@pytest.mark.parametrize("ids", [2, 10, 1000])
def test_zipf_follows_its_law(exponent, ids):
    drawn = zipf(50_000, ids, exponent, np.random.default_rng(1))
    mass = np.arange(1, ids + 1, dtype=float) ** -exponent
    expected = 50_000 * mass / mass.sum()
    often = expected >= 5
    seen = np.bincount(drawn, minlength=ids)
    pooled_seen = np.append(seen[often], seen[~often].sum())
    pooled = np.append(expected[often], expected[~often].sum())
    kept = pooled > 0
    assert chisquare(pooled_seen[kept], pooled[kept]).pvalue > 1e-3


def test_zipf_over_a_billion_ids_has_its_head_and_its_tail():
    drawn = zipf(100_000, 10**9, 1.05, np.random.default_rng(0))
    total = 12.9  # ∫ x^−1.05 from 1 to 10⁹, up to a constant below one
    assert (drawn == 0).mean() == pytest.approx(1 / total, abs=0.01)
    assert (drawn > 10**6).mean() > 0.1


def test_hashed_values_are_uniform_and_depend_on_seed_stream_and_id():
    ids = np.arange(20_000) + 10**12
    values = uniforms(3, 7, ids)
    assert kstest(values, "uniform").pvalue > 1e-3
    assert kstest(normals(3, 7, ids), "norm").pvalue > 1e-3
    np.testing.assert_array_equal(values[::-1], uniforms(3, 7, ids[::-1]))
    others = (uniforms(4, 7, ids), uniforms(3, 8, ids), uniforms(3, 7, ids + 1))
    for other in others:
        assert abs(np.corrcoef(values, other)[0, 1]) < 0.03


def test_clicks_have_the_shape_and_the_law_they_declare():
    data = planted.ctr(rows=20_000, ids=5000, fields=4)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [16_000, 2000, 2000]
    assert data.fields == {"user": 5000, "item": 5000, "field_2": 5000, "field_3": 5000}
    (ids,) = data.train.inputs
    assert ids.shape == (16_000, 4)
    assert torch.equal(data.train.users, ids[:, 0])
    assert torch.equal(data.train.items, ids[:, 1])
    counts = torch.bincount(ids[:, 3], minlength=5000)
    assert counts[0] > counts[10] > counts[1000]
    assert set(data.test.segments) == {"popularity", "activity"}


@pytest.mark.parametrize("seed", range(3))
def test_the_known_best_is_what_the_true_probability_is_expected_to_reach(seed):
    data = planted.ctr(seed=seed)
    truth = planted.click_probability(data.test.inputs[0].numpy(), seed)
    twice = np.concatenate((truth, truth))  # each row as a click with weight p, and as none
    label = np.repeat([1.0, 0.0], len(truth))
    both = Scored({"score": twice, "label": label, "user": label}, np.arange(len(twice)))
    expected = AUC(both, np.concatenate((truth, 1 - truth)))
    entropy = -(truth * np.log(truth) + (1 - truth) * np.log(1 - truth)).mean()
    assert data.best["auc"] == pytest.approx(expected, abs=0.01)
    assert data.best["logloss"] == pytest.approx(entropy, abs=0.01)
    assert 0.75 < data.best["auc"] < 0.85
    assert float(data.test.labels.mean()) == pytest.approx(truth.mean(), abs=0.01)


def test_drifting_clicks_are_drawn_from_a_truth_that_turns():
    turn = np.pi / 2
    data = planted.ctr(rows=40_000, ids=50, fields=4, seed=3, drift=turn)
    assert data.ordered
    parts = data.train, data.valid, data.test
    assert [len(part) for part in parts] == [16_000, 4000, 20_000]
    ids, label = data.test.inputs[0].numpy(), data.test.labels.numpy()
    angle = turn * np.arange(20_000, 40_000) / 40_000
    truths = {
        name: planted.click_probability(ids, 3, at)
        for name, at in (("now", angle), ("first", None), ("never", np.full(20_000, turn + np.pi)))
    }
    columns = {"label": label, "user": label}
    reached = {
        name: AUC(Scored({"score": truth, **columns}, np.arange(len(truth))))
        for name, truth in truths.items()
    }
    assert reached["now"] == pytest.approx(data.best["auc"], abs=1e-6)
    assert reached["now"] > reached["first"] + 0.05 > 0.55
    assert reached["never"] < 0.5
    still = planted.ctr(rows=40_000, ids=50, fields=4, seed=3)
    np.testing.assert_array_equal(
        planted.click_probability(ids, 3), planted.click_probability(ids, 3, np.zeros(20_000))
    )
    assert "drift 1.5708" in data.protocol
    assert "drift" not in still.protocol
    assert still.ordered


def test_a_model_learns_the_clicks_and_stays_below_the_best():
    data = planted.ctr(rows=60_000, ids=200, fields=5)
    encoder = OneHotEncoder(handle_unknown="ignore").fit(data.train.inputs[0])
    model = LogisticRegression(C=0.3, max_iter=200)
    model.fit(encoder.transform(data.train.inputs[0]), data.train.labels)
    score = model.predict_proba(encoder.transform(data.test.inputs[0]))[:, 1]
    columns = {"score": score, "label": data.test.labels.numpy(), "user": data.test.users.numpy()}
    reached = AUC(Scored(columns, np.arange(len(score))))
    assert 0.7 < reached < data.best["auc"] - 0.01  # the pair effect is beyond an additive model


@pytest.mark.parametrize("make", [planted.ctr, planted.interactions, planted.sequences])
def test_planted_data_follow_their_seed(make):
    small = {"rows": 5000} if make is not planted.sequences else {"users": 500}
    digests = [make(**small, seed=seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def peak_bytes(ids: int) -> int:
    tracemalloc.start()
    planted.ctr(rows=20_000, ids=ids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_ids():
    peak_bytes(10**4)  # imports and caches
    assert peak_bytes(10**9) < 1.2 * peak_bytes(10**4)


def test_interactions_are_distinct_and_ranking_by_the_truth_beats_popularity():
    data = planted.interactions(users=300, items=200, rows=10_000)
    splits = (data.train, data.valid, data.test)
    pairs = torch.cat([part.users * 200 + part.items for part in splits])
    assert len(pairs.unique()) == len(pairs) < 10_000
    assert all(torch.equal(part.inputs[1], part.items) for part in splits)
    assert data.fields == {"user": 300, "item": 200}
    seen = tuple(
        torch.cat((getattr(data.train, side), getattr(data.valid, side)))
        for side in ("users", "items")
    )
    wanted = data.test.users, data.test.items
    rank = pessimistic_ranks(-torch.arange(200.0).expand(300, 200), seen, wanted).numpy()
    user = data.test.users.numpy()
    columns = {"rank": rank, "relevant": np.bincount(user)[user], "user": user}
    by_popularity = RETRIEVAL_METRICS[0](Scored(columns, user))
    assert data.best["ndcg@10"] > 1.2 * by_popularity > 0


def test_interactions_over_a_billion_items_cost_no_catalogue():
    data = planted.interactions(users=10**6, items=10**9, rows=2000)
    assert data.fields == {"user": 10**6, "item": 10**9}
    assert data.best == {}


def test_sequences_repeat_their_successors_and_the_best_ranking_is_known():
    data = planted.sequences(users=4000, items=500, length=20)
    (history,) = data.test.inputs
    assert history.shape == (4000, 20)
    assert torch.equal(data.train.inputs[0][:, 1:], data.valid.inputs[0][:, :-1])
    assert torch.equal(data.valid.inputs[0][:, -1], data.train.items)
    assert torch.equal(history[:, -1], data.valid.items)
    last, target = history[:, -1].numpy(), data.test.items.numpy()
    mass = np.arange(1.0, 501) ** -1.05
    probability = np.tile(mass * (1 - sum(planted.SUCCESSORS)) / mass.sum(), (4000, 1))
    for k, share in enumerate(planted.SUCCESSORS):
        probability[np.arange(4000), planted.successors(last, 500, 0)[:, k]] += share
    own = probability[np.arange(4000), target]
    rank = (probability >= own[:, None] - 1e-12).sum(1)
    assert data.best["hr@10"] == pytest.approx((rank <= 10).mean())
    assert data.best["ndcg@10"] == pytest.approx(((rank <= 10) / np.log2(1 + rank)).mean())
    first = planted.successors(last, 500, 0)[:, 0]
    assert (first == target).mean() == pytest.approx(planted.SUCCESSORS[0], abs=0.05)


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (planted.ctr, {"rows": 3}),
        (planted.ctr, {"fields": 1}),
        (planted.ctr, {"ids": 0}),
        (planted.interactions, {"items": -5}),
        (planted.sequences, {"length": 0}),
    ],
)
def test_sizes_too_small_are_refused(make, sizes):
    with pytest.raises(LeanRecError, match=f"{next(iter(sizes))}=.*too small"):
        make(**sizes)


def test_clicks_can_have_the_users_earlier_items() -> None:
    data = planted.ctr(rows=400, ids=5, fields=2, history=3)
    ids = torch.cat([s.inputs[0] for s in (data.train, data.valid, data.test)]).tolist()
    history = torch.cat([s.inputs[1] for s in (data.train, data.valid, data.test)]).tolist()
    for row, (user, _) in enumerate(ids):
        before = [item for other, item in ids[:row] if other == user][-3:]
        assert history[row] == [5] * (3 - len(before)) + before
    assert torch.equal(planted.ctr(rows=400, ids=5, fields=2).train.inputs[0], data.train.inputs[0])
