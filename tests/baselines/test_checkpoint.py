"""A training that is killed goes on from its checkpoint, and ends as if it never had been."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from baselines.base import Dataset, Recipe
from baselines.checkpoint import Checkpoint, save
from baselines.data import planted
from baselines.models.dcnv2 import DCNv2
from baselines.tasks.ctr import CTR
from baselines.trainer import Epoch, History, Trainer

CPU = torch.device("cpu")
RECIPES = {
    "dense": Recipe(lr=0.02, plateau=0.5, embedding_l2=0.01),
    "sparse": Recipe(lr=0.02, sparse_embeddings=True, warmup_steps=25),
    "adamw": Recipe(optimiser="adamw", lr=0.02, betas=(0.8, 0.98), weight_decay=0.1),
    "narrow": Recipe(lr=0.02, embedding_l2=0.01, moments="bfloat16"),
    "scaled": Recipe(lr=0.02, scale_loss=True),
}


class KilledError(Exception):
    """Stands for the kill."""


def data() -> Dataset:
    return planted.ctr(rows=600, ids=20, fields=3)


def fit(recipe: Recipe, folder: Path | None, kill_after: int = 99) -> tuple[nn.Module, History]:
    """Train a model with dropout; killed after its `kill_after`-th epoch in this process."""
    torch.manual_seed(0)
    made = data()
    model = DCNv2(list(made.fields.values()), embedding_dim=4, hidden=(8,), dropout=0.3)
    torch.seed()  # what the global generator gives before fit must not matter
    seen: list[Epoch] = []

    def note(epoch: Epoch) -> None:
        seen.append(epoch)
        if len(seen) == kill_after:
            raise KilledError

    recipe = dataclasses.replace(recipe, epochs=7, patience=5, batch_size=64)
    return model, Trainer(model, CTR(), recipe, CPU, 5).fit(made, note, folder)


def assert_same(one: tuple[nn.Module, History], two: tuple[nn.Module, History]) -> None:
    a, b = one[0].state_dict(), two[0].state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert one[1].best == two[1].best
    untimed = [[dataclasses.replace(e, seconds=0) for e in h.epochs] for h in (one[1], two[1])]
    assert untimed[0] == untimed[1]


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, tuple[nn.Module, History]]:
    return {name: fit(recipe, None) for name, recipe in RECIPES.items()}


@pytest.fixture(autouse=True)
def _always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every epoch, however short."""
    monkeypatch.setattr(Checkpoint, "due", property(lambda c: c.folder is not None))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("kill_after", [1, 2, 3, 4])
def test_killed_and_gone_on_it_ends_as_if_it_never_had_been(
    tmp_path: Path,
    uninterrupted: dict[str, tuple[nn.Module, History]],
    name: str,
    kill_after: int,
) -> None:
    with pytest.raises(KilledError):
        fit(RECIPES[name], tmp_path, kill_after)
    assert_same(fit(RECIPES[name], tmp_path), uninterrupted[name])


def test_killed_again_and_again_it_gets_there(
    tmp_path: Path, uninterrupted: dict[str, tuple[nn.Module, History]]
) -> None:
    kills = 0
    while True:
        try:
            ended = fit(RECIPES["dense"], tmp_path, kill_after=1)
        except KilledError:
            kills += 1
        else:
            break
    assert kills == len(uninterrupted["dense"][1].epochs)
    assert_same(ended, uninterrupted["dense"])


def test_a_finished_training_is_not_trained_again(
    tmp_path: Path, uninterrupted: dict[str, tuple[nn.Module, History]]
) -> None:
    fit(RECIPES["dense"], tmp_path)
    assert_same(fit(RECIPES["dense"], tmp_path, kill_after=1), uninterrupted["dense"])


@pytest.mark.parametrize("interrupted", ["os.replace", "torch.save", "os.fsync"])
def test_a_kill_within_the_writing_leaves_the_checkpoint_before(
    tmp_path: Path,
    uninterrupted: dict[str, tuple[nn.Module, History]],
    monkeypatch: pytest.MonkeyPatch,
    interrupted: str,
) -> None:
    room, call = (os if interrupted.startswith("os") else torch), interrupted.partition(".")[2]
    real, calls = getattr(room, call), [0]

    def breaking(*args: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] > 5:
            raise KilledError
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(room, call, breaking)
        with pytest.raises(KilledError):
            fit(RECIPES["dense"], tmp_path)
    assert_same(fit(RECIPES["dense"], tmp_path), uninterrupted["dense"])


def test_the_folder_holds_no_more_than_the_last_and_the_best(tmp_path: Path) -> None:
    for kill_after in range(1, 6):
        with pytest.raises(KilledError):
            fit(RECIPES["sparse"], tmp_path / str(kill_after), kill_after)
        names = [p.name for p in (tmp_path / str(kill_after)).iterdir()]
        assert sum(n.startswith("weights-") for n in names) <= 2
        assert sum(n.startswith("state-") for n in names) == 1


def test_a_full_disk_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="No space left"):
        save({"weights": torch.zeros(10**5)}, Path("/dev/full"))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fit(RECIPES["dense"], tmp_path)


def test_weights_that_are_cut_short_are_not_taken(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        fit(RECIPES["dense"], tmp_path, kill_after=1)
    os.truncate(tmp_path / "weights-0", 100)
    with pytest.raises(EOFError, match="weights-0 is shorter"):
        fit(RECIPES["dense"], tmp_path)


@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4),
    half=st.booleans(),
)
@settings(max_examples=30)
def test_the_best_weights_come_back_whatever_their_shapes(
    shapes: list[list[int]], half: bool
) -> None:
    dtype = torch.bfloat16 if half else torch.float32
    tensors: list[Tensor] = [torch.randn(shape).to(dtype) for shape in shapes]
    tensors = [t.mT if t.ndim > 1 else t for t in tensors]
    kept = [t.clone() for t in tensors]
    with Checkpoint(None) as checkpoint:
        checkpoint.keep_best(0, tensors)
        for tensor in tensors:
            tensor.zero_()
        checkpoint.restore_best(tensors)
    assert all(map(torch.equal, tensors, kept))


PROGRAM = """
import sys
from pathlib import Path
import torch
from test_checkpoint import RECIPES, fit
torch.set_num_threads(1)
print("go", flush=True)
fit(RECIPES["dense"], Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_real_kill_at_any_moment_harms_nothing(
    tmp_path: Path, uninterrupted: dict[str, tuple[nn.Module, History]]
) -> None:
    for delay in (0.02, 0.05, 0.1, 0.15, 0.2):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    assert_same(fit(RECIPES["dense"], tmp_path), uninterrupted["dense"])
