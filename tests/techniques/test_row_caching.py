"""Techniques that store tables: the same answers to the bit, what is stored, what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from baselines.base import BASELINES, Batch, Split
from baselines.errors import LeanRecError
from techniques.base import TECHNIQUES, Change, Context, Technique
from techniques.caching.counters import caches
from techniques.caching.look_ups import LookUps
from techniques.caching.row_cache import RowCache, StoredEmbedding
from techniques.sizes import deployed_bytes

NAMES = ("stored-embedding", "lru-cache", "lfu-cache", "tinylfu-cache", "static-hot-cache")
ROWS, FIELDS = 400, 3


class Clicks(nn.Module):
    """Fields of one table, a small table of days, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.day = nn.Embedding(ROWS, 8), nn.Embedding(7, 8)
        self.layer = nn.Linear(8, 1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids).sum(1) + self.day(ids[:, 0] % 7)
        return self.layer(x).squeeze(1)


def request(rows: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    skewed = (torch.rand(rows, FIELDS, generator=generator) ** 3 * ROWS).long()
    return (skewed,)


@pytest.fixture
def model() -> Clicks:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Clicks().eval()


@pytest.fixture
def context() -> Context:
    inputs = request(500, 9)
    nothing = torch.zeros(500)
    train = Split(inputs, nothing, nothing.long(), nothing.long())
    return Context("ctr", torch.device("cpu"), 0, (request(16, 1),), train)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_the_models_to_the_bit_for_as_long_as_it_is_asked(
    name: str, model: Clicks, context: Context
) -> None:
    served = TECHNIQUES.make(name).deploy(model, context)
    with torch.inference_mode():
        for seed in range(20):
            batch = request(1 + 13 * seed, seed)
            assert torch.equal(served(*batch), model(*batch))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_tables_of_other_types_are_stored_as_they_are(
    name: str, precision: torch.dtype, model: Clicks, context: Context
) -> None:
    model = model.to(precision)
    served = TECHNIQUES.make(name).deploy(model, context)
    batch = request(40, 3)
    assert torch.equal(served(*batch), model(*batch))


def test_only_tables_worth_it_are_stored_and_a_share_of_their_rows_held(
    model: Clicks, context: Context
) -> None:
    served = TECHNIQUES.make("lru-cache(rows=0.25)").deploy(model, context)
    (cache,) = caches(served)
    assert isinstance(cache, RowCache)
    assert cache.capacity == ROWS // 4
    assert type(served.day) is nn.Embedding
    assert served.layer.weight is model.layer.weight
    assert deployed_bytes(served) < deployed_bytes(model)


def test_the_hottest_rows_of_the_train_split_are_held(model: Clicks, context: Context) -> None:
    (cache,) = caches(TECHNIQUES.make("static-hot-cache").deploy(model, context))
    assert context.train is not None
    counts = context.train.inputs[0].flatten().bincount(minlength=ROWS)
    held = cache.slot_of >= 0
    assert int(held.sum()) == ROWS // 10
    assert counts[held].min() >= counts[~held].max()
    cache(request(64, 2)[0])
    assert torch.equal(cache.slot_of >= 0, held)
    assert cache.counts.hits > 0


def test_hot_rows_cannot_be_told_without_a_train_split(model: Clicks, context: Context) -> None:
    bare = dataclasses.replace(context, train=None)
    with pytest.raises(LeanRecError, match="no train split"):
        TECHNIQUES.make("static-hot-cache").deploy(model, bare)


def test_a_retriever_counts_the_users_that_it_is_asked_for() -> None:
    baseline = BASELINES.make('two-tower(dataset="planted(rows=2000, ids=300)")')
    data = baseline.data()
    predictor = baseline.task.predictor(baseline.build(data), data)
    examples = tuple(baseline.task.requests(data, 8, 1, 0))
    context = Context("retrieval", torch.device("cpu"), 0, examples, data.train)
    (cache,) = caches(TECHNIQUES.make("static-hot-cache").deploy(predictor, context))
    counts = data.train.users.bincount(minlength=cache.num_embeddings)
    held = cache.slot_of >= 0
    assert counts[held].min() >= counts[~held].max()


def test_models_without_a_table_worth_it_are_left_alone(model: Clicks) -> None:
    technique = TECHNIQUES.make("lru-cache")
    model.table = nn.Embedding(10, 8)
    assert "no table of 256 rows" in str(technique.reason_against(model, "ctr", "cpu"))
    model.table = nn.Embedding(ROWS, 8)
    assert technique.reason_against(model, "ctr", "cpu") is None
    assert "not for sequence" in str(technique.reason_against(model, "sequence", "cpu"))
    assert "device cpu" in str(technique.reason_against(model, "ctr", "cuda"))
    model.table.max_norm = 1.0  # whose rows change when they are read
    assert technique.reason_against(model, "ctr", "cpu") is not None


@pytest.mark.parametrize("wrong", ["rows=0", "rows=1.5", "store_microseconds=-1"])
def test_parameters_out_of_range_are_refused(wrong: str) -> None:
    with pytest.raises(LeanRecError):
        TECHNIQUES.make(f"lru-cache({wrong})")


def test_who_gains_from_repeats_says_so() -> None:
    declared = {n for n in TECHNIQUES.names() if Change.REPEATS in TECHNIQUES.get(n).changes}
    learning = {"lru-cache", "lfu-cache", "tinylfu-cache", "user-cache", "result-cache"}
    assert declared >= learning
    assert not declared & {"static-hot-cache", "stored-embedding", "prefetch"}


def test_look_ups_are_found_without_the_rest_of_the_model() -> None:
    class Loud(Clicks):
        went_on = 0

        def forward(self, ids: Tensor) -> Tensor:
            first = self.table(ids[:, :1])
            second = self.table(ids[:, 1:])
            Loud.went_on += 1
            return first.sum((1, 2)) + second.sum((1, 2))

    model, seen = Loud().eval(), []

    def read(number: int, ids: Tensor) -> Tensor:
        seen.append((number, ids.numel()))
        return torch.zeros(*ids.shape, 8)

    look_ups = LookUps(model, [model.day, model.table], request(4, 0), read)
    assert (look_ups.count, Loud.went_on) == (2, 1)
    look_ups(*request(5, 1))
    assert seen == [(1, 4), (1, 8), (1, 5), (1, 10)]
    assert Loud.went_on == 1


@pytest.mark.parametrize("technique", [TECHNIQUES.make(n) for n in ("lru-cache", "result-cache")])
def test_a_cache_refuses_to_be_made_a_graph(
    technique: Technique, model: Clicks, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = technique.deploy(model, context)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    with pytest.raises(LeanRecError, match="compiled or exported graph"):
        served(*request(4, 0))


def test_weights_of_stored_tables_can_be_read(model: Clicks, context: Context) -> None:
    served = TECHNIQUES.make("stored-embedding").deploy(model, context)
    assert isinstance(served.table, StoredEmbedding)
    assert torch.equal(served.table.weight, model.table.weight)
