"""Asynchronous training: what is applied, how stale it may be, and that no process is left."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import active_children, current_process
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from baselines import asynchronous
from baselines.asynchronous import AsynchronousTrainer, Slot, make_trainer
from baselines.base import Asynchronous, Batch, Dataset, Recipe
from baselines.data import planted
from baselines.errors import LeanRecError
from baselines.models.dcnv2 import DCNv2
from baselines.tasks.ctr import CTR
from baselines.trainer import Epoch, Trainer

CPU = torch.device("cpu")
RECIPE = Recipe(lr=0.01, batch_size=100, epochs=2, warmup_steps=5, clip_norm=0.05)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted.ctr(rows=1000, ids=20, fields=3)


def fresh(data: Dataset, dropout: float = 0.0) -> DCNv2:
    torch.manual_seed(0)
    cardinalities = list(data.fields.values())
    return DCNv2(cardinalities, embedding_dim=4, hidden=(8,), dropout=dropout)


def under(workers: int, staleness: int, recipe: Recipe = RECIPE) -> Recipe:
    return dataclasses.replace(recipe, asynchronous=Asynchronous(workers, staleness))


def same(a: nn.Module, b: nn.Module) -> bool:
    others = b.state_dict()
    return all(torch.equal(value, others[name]) for name, value in a.state_dict().items())


class Slow(CTR):
    """The CTR task, whose second worker takes its time."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if current_process().name.endswith("2"):
            time.sleep(0.05)
        return super().loss(model, batch)


class Deadly(CTR):
    """The CTR task, which ends the process on a batch that holds fewer rows than a whole one."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if len(batch[-1]) < RECIPE.batch_size:
            os._exit(3)
        return super().loss(model, batch)


def test_the_recipe_chooses_the_trainer(data: Dataset) -> None:
    assert type(make_trainer(fresh(data), CTR(), RECIPE, CPU, 0)) is Trainer
    assert type(make_trainer(fresh(data), CTR(), under(2, 0), CPU, 0)) is AsynchronousTrainer
    assert active_children() == []  # none before the first step


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [False, True])
def test_one_worker_is_the_synchronous_trainer_to_the_bit(data: Dataset, sparse: bool) -> None:
    recipe = dataclasses.replace(RECIPE, sparse_embeddings=sparse)
    models = fresh(data, 0.2), fresh(data, 0.2)
    histories = [
        make_trainer(model, CTR(), how, CPU, 5).fit(data)
        for model, how in zip(models, (recipe, under(1, 0, recipe)), strict=True)
    ]
    assert same(*models)
    synchronous, one = ([(e.train_loss, e.valid) for e in h.epochs] for h in histories)
    assert synchronous == one
    assert (histories[1].mean_staleness, histories[1].max_staleness) == (0.0, 0)
    assert active_children() == []


@pytest.mark.slow
def test_without_staleness_a_round_is_computed_on_the_same_weights(data: Dataset) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=1)
    model, expected = fresh(data), fresh(data)
    reference = Trainer(expected, CTR(), recipe, CPU, 5)
    weights = list(expected.parameters())
    batches = list(reference.batches(data))
    for first in range(0, len(batches), 2):
        gradients = []
        for batch in batches[first : first + 2]:
            reference.gradient(batch)
            gradients.append([p.grad for p in weights])
            expected.zero_grad()
        for of_batch in gradients:
            for parameter, gradient in zip(weights, of_batch, strict=True):
                parameter.grad = gradient
            reference.update()

    history = make_trainer(model, CTR(), under(2, 0, recipe), CPU, 5).fit(data)

    assert same(model, expected)
    assert history.mean_staleness == 0.5
    assert history.max_staleness == 1


@pytest.mark.slow
def test_a_fast_worker_waits_for_a_slow_one(data: Dataset) -> None:
    staleness = 2
    recipe = dataclasses.replace(under(2, staleness), batch_size=10, epochs=1)
    trainer = AsynchronousTrainer(fresh(data), Slow(), recipe, CPU, 0)
    for batch in trainer.batches(data):
        trainer.step(batch)
        clocks = [worker.clock for worker in trainer._workers]
        assert max(clocks) - min(clocks) <= staleness + 1
    trainer.settle()
    assert trainer._updates == len(data.train) // 10
    assert 1 <= trainer._stalest <= 2 * staleness + 1
    trainer.close()
    assert active_children() == []


@pytest.mark.slow
def test_a_training_that_was_cut_off_goes_on_to_the_same_end(data: Dataset, tmp_path: Path) -> None:
    class CutOffError(Exception):
        pass

    def cut(epoch: Epoch) -> None:
        raise CutOffError

    expected, model = fresh(data, 0.2), fresh(data, 0.2)
    Trainer(expected, CTR(), RECIPE, CPU, 5).fit(data)
    with pytest.raises(CutOffError):
        make_trainer(fresh(data, 0.2), CTR(), under(1, 0), CPU, 5).fit(data, cut, tmp_path)
    assert active_children() == []
    make_trainer(model, CTR(), under(1, 0), CPU, 5).fit(data, checkpoints=tmp_path)
    assert same(model, expected)


@pytest.mark.slow
def test_a_worker_that_ends_ends_the_training(data: Dataset) -> None:
    recipe = dataclasses.replace(under(2, 1), epochs=1)
    odd = dataclasses.replace(data, train=planted.ctr(rows=1000 + 50, ids=20, fields=3).train)
    trainer = AsynchronousTrainer(fresh(data), Deadly(), recipe, CPU, 0)
    with pytest.raises(LeanRecError, match=r"Worker [01] .* ended with exit code 3"):
        trainer.fit(odd)
    assert active_children() == []


SERVER = """
import time, torch
from test_asynchronous import AsynchronousTrainer, CTR, fresh, planted, under
if __name__ == "__main__":
    data = planted.ctr(rows=1000, ids=20, fields=3)
    trainer = AsynchronousTrainer(fresh(data), CTR(), under(2, 1), torch.device("cpu"), 0)
    for batch in trainer.batches(data):
        trainer.step(batch)
    print(*(worker.process.process.pid for worker in trainer._workers), flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_workers_do_not_outlive_a_server_that_was_killed(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    before = set(shared.iterdir()) if shared.is_dir() else set()
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    server = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert server.stdout is not None
    workers = [psutil.Process(int(pid)) for pid in server.stdout.readline().split()]
    assert len(workers) == 2
    server.kill()
    server.communicate(timeout=300)
    _, alive = psutil.wait_procs(workers, timeout=120)
    assert alive == []
    if shared.is_dir():
        assert {p for p in set(shared.iterdir()) - before if p.name.startswith("torch")} == set()


def test_workers_share_the_memory_of_the_host(data: Dataset) -> None:
    with pytest.raises(LeanRecError, match="Asynchronous training on meta is not there"):
        make_trainer(fresh(data), CTR(), under(2, 0), torch.device("meta"), 0)


def test_too_little_shared_memory_is_said_before_anything_is_trained(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(asynchronous, "SHARED", tmp_path)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("baselines.asynchronous.shutil.disk_usage", lambda path: usage)
    trainer = make_trainer(fresh(data), CTR(), under(2, 0), CPU, 0)
    with pytest.raises(LeanRecError, match=r"MiB of shared memory.*--shm-size"):
        trainer.step(next(trainer.batches(data)))


@pytest.mark.parametrize("cross", [Tensor.to_sparse, Tensor.clone], ids=["sparse", "dense"])
@given(rows=st.lists(st.integers(0, 9), max_size=20), seed=st.integers(0, 99))
def test_of_a_table_only_touched_rows_cross(
    cross: Callable[..., Tensor], rows: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    gradient = torch.zeros(10, 3)
    for row in rows:
        gradient[row] = torch.randn(3)
    sparse = cross is Tensor.to_sparse
    slot = Slot(gradient, table=True)
    count = slot.put(gradient.to_sparse(1) if sparse else gradient)
    assert count == len(set(rows))
    taken = slot.take(count, sparse)
    assert taken is not None
    assert taken.is_sparse == sparse
    assert torch.equal(taken.to_dense() if sparse else taken, gradient)


def test_other_gradients_cross_whole() -> None:
    for weight in (torch.randn(4, 2), torch.randn(())):
        slot = Slot(weight, table=False)
        taken = slot.take(slot.put(weight + 1), False)
        assert taken is not None
        assert torch.equal(taken, weight + 1)
        assert slot.take(slot.put(None), False) is None
