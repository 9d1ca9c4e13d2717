from __future__ import annotations

import dataclasses

import pytest
import torch

from baselines.base import Recipe
from baselines.errors import LeanRecError
from techniques.base import TECHNIQUES, Context
from techniques.distributed.data_parallel import AveragedByGroups

CONTEXT = Context("ctr", torch.device("cpu"), 0)
NAMES = [name for name in TECHNIQUES.names() if TECHNIQUES.get(name).family == "distributed"]


def test_the_family_is_registered() -> None:
    assert set(NAMES) == {
        "ddp", "ddp-accumulate", "ddp-compress", "ddp-hierarchical", "ddp-local-sgd",
        "ddp-powersgd", "embedding-shard", "fsdp", "zero",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_sparse_gradients_are_refused(name: str) -> None:
    with pytest.raises(LeanRecError, match="Train the embeddings densely"):
        TECHNIQUES.make(name).train(Recipe(sparse_embeddings=True), CONTEXT)


@pytest.mark.parametrize("name", NAMES)
def test_two_ways_to_share_a_batch_are_refused(name: str) -> None:
    once = TECHNIQUES.make("ddp").train(Recipe(), CONTEXT)
    with pytest.raises(LeanRecError, match="two techniques"):
        TECHNIQUES.make(name).train(once, CONTEXT)


@pytest.mark.parametrize("name", NAMES)
def test_only_how_a_batch_is_shared_changes(name: str) -> None:
    recipe = Recipe(own_rates={"text": 1e-4})
    changed = TECHNIQUES.make(name).train(recipe, CONTEXT)
    assert changed.parallel is not None
    growth = 2 if name == "ddp-accumulate" else 1  # √4
    assert changed.lr == pytest.approx(recipe.lr * growth)
    assert changed.own_rates == {"text": pytest.approx(1e-4 * growth)}
    back = dataclasses.replace(changed, parallel=None, lr=recipe.lr, own_rates=recipe.own_rates)
    assert back == recipe


@pytest.mark.parametrize(
    ("spec", "warmup_steps", "cycle"),
    [
        ("ddp", 0, 1),
        ("ddp-accumulate(batches=3)", 0, 3),
        ("ddp-local-sgd(period=5, warmup=7)", 7, 5),
        ("ddp-hierarchical(period=2, rounds=3, warmup=7)", 7, 6),
    ],
)
def test_when_communication_is_steady_and_repeats(spec: str, warmup_steps: int, cycle: int) -> None:
    parallel = TECHNIQUES.make(spec).train(Recipe(), CONTEXT).parallel
    assert parallel is not None
    assert (parallel.warmup_steps, parallel.cycle) == (warmup_steps, cycle)


def test_ranks_that_do_not_fall_into_groups_are_refused() -> None:
    parallel = AveragedByGroups(5, period=4, warmup=0, group=2, rounds=4)
    with pytest.raises(LeanRecError, match="5 ranks do not fall into groups of 2"):
        parallel.join(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    "spec", ["ddp(ranks=0)", "ddp-accumulate(batches=0)", "ddp-powersgd(approximation_rank=0)"]
)
def test_impossible_numbers_are_refused(spec: str) -> None:
    with pytest.raises(LeanRecError):
        TECHNIQUES.make(spec)
