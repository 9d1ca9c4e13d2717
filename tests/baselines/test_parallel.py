from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.base import BASELINES, Batch, Recipe, Task
from baselines.errors import LeanRecError
from baselines.parallel import Parallel, Team
from baselines.steps import with_last
from baselines.tasks.retrieval import Retrieval
from baselines.tasks.sequence import Sequence
from baselines.trainer import Trainer

CPU = torch.device("cpu")
SMALL = 'dataset="planted(rows=2000, ids=300)"'
EXACT = [  # (baseline, task): a row's loss does not depend on the others
    (f"dcnv2({SMALL}, dropout=0.0)", None),
    (f"two-tower({SMALL})", Retrieval(objective="bpr")),
    (f"two-tower({SMALL})", Retrieval(negatives=16)),
    (f"sasrec({SMALL}, dropout=0.0)", Sequence()),
    (f"sasrec({SMALL}, dropout=0.0)", Sequence("sampled-softmax", negatives=16)),
    (f"sasrec({SMALL}, dropout=0.0)", Sequence("bce")),
    (f"sasrec({SMALL}, dropout=0.0)", Sequence("gbce", negatives=16)),
]


def batches_of(spec: str, task: Task | None, size: int) -> tuple[Task, nn.Module, Iterator[Batch]]:
    made = BASELINES.make(spec)
    task, data = task or made.task, made.data()
    torch.manual_seed(0)
    model = made.build(data)
    return task, model, task.batches(data, size, torch.Generator().manual_seed(0), CPU)


@pytest.mark.parametrize(("spec", "task"), EXACT, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize(("size", "ranks"), [(8, 2), (7, 3), (2, 4)])
def test_the_weighted_losses_of_the_shares_are_that_of_the_batch(
    spec: str, task: Task | None, size: int, ranks: int
) -> None:
    task, model, batches = batches_of(spec, task, size)
    batch = next(batches)
    shares = [task.share(batch, rank, ranks) for rank in range(ranks)]
    losses = [weight * task.loss(model, part) for part, weight in shares]
    torch.testing.assert_close(sum(losses) / ranks, task.loss(model, batch))
    assert all(torch.isfinite(loss) for loss in losses)
    assert sum(weight for _, weight in shares) == pytest.approx(ranks)


def test_in_batch_negatives_are_those_of_a_ranks_own_rows() -> None:
    task, _, batches = batches_of(f"two-tower({SMALL})", Retrieval(objective="in-batch"), 8)
    (users, *_), weight = task.share(next(batches), 1, 2)
    assert len(users) == 4
    assert weight == 1


@settings(max_examples=30)
@given(rows=st.integers(1, 40), ranks=st.integers(1, 8))
def test_every_row_falls_to_one_rank(rows: int, ranks: int) -> None:
    task, batch = BASELINES.make("dcnv2").task, (torch.arange(rows), torch.ones(rows))
    shares = [task.share(batch, rank, ranks) for rank in range(ranks)]
    weighed = torch.cat([part[0] for part, weight in shares if weight])
    assert sorted(weighed.tolist()) == list(range(rows))


@given(st.lists(st.integers()))
def test_the_last_item_is_known_as_such(items: list[int]) -> None:
    seen = list(with_last(items))
    assert [item for item, _ in seen] == items
    assert [last for _, last in seen] == [False] * (len(items) - 1) + [True] * bool(items)


class Pairs(Team):
    """Updates once in two batches."""

    added = 0

    @contextmanager
    def exchange(self, last: bool) -> Iterator[int]:
        self.added += 1
        due = self.added if last or self.added == 2 else 0
        self.added = 0 if due else self.added
        yield due


@dataclass(frozen=True)
class InPairs(Parallel):
    def join(self, whole: nn.Module) -> Team:
        return Pairs(whole)


def trainer(recipe: Recipe, **changes: Any) -> Trainer:
    made = BASELINES.make(f"dcnv2({SMALL}, dropout=0.0)")
    torch.manual_seed(0)
    changed = dataclasses.replace(recipe, **changes)
    return Trainer(made.build(made.data()), made.task, changed, CPU, seed=0)


def test_the_trainer_updates_when_the_team_says_and_by_the_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    made = BASELINES.make(f"dcnv2({SMALL})")
    one = trainer(made.recipe, batch_size=64)
    two = trainer(made.recipe, batch_size=32, parallel=InPairs(1))
    before = [p.clone() for p in two.model.parameters()]
    whole = next(one.batches(made.data()))
    one.step(whole)

    two.step(tuple(column[:32] for column in whole))
    assert all(map(torch.equal, before, two.model.parameters()))
    two.step(tuple(column[32:] for column in whole))

    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_parallel_recipe_needs_its_ranks() -> None:
    recipe = BASELINES.make("dcnv2").recipe
    with pytest.raises(LeanRecError, match=r"for 2 ranks, and this process is in no process group"):
        trainer(recipe, parallel=InPairs(2))
