from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from baselines.errors import LeanRecError
from baselines.trainer import Epoch, NonFiniteLoss
from bench import ranks as ranks_module
from bench.device import get_device
from bench.pipeline import Pipeline
from bench.ranks import Done, EpochOver, Job, Order, Ranks, Ready
from bench.store import Store

DCNV2 = (
    'dcnv2(dataset="planted(rows=2000, ids=300)", dropout=0.0, width=32, depth=1, '
    "cross_layers=1, epochs=3, batch_size=256)"
)
STARTED = '{"kind":"started"}'
DONE = '{"kind":"done"}'
EPOCH = '{"kind":"epoch","samples_seen":8,"train_loss":0.5,"valid":0.7,"seconds":1}'


@contextmanager
def saying(*scripts: str) -> Iterator[Ranks]:
    """Ranks that are shell scripts, and once they have a job say whatever they are told to."""
    commands = [("sh", "-c", f"echo '{STARTED}'; read job; {script}") for script in scripts]
    with Ranks(len(scripts), commands) as ranks:
        ranks.begin(
            Job(
                baseline="",
                stack="",
                device="cpu",
                seed=0,
                store=Path(),
                plugins=(),
                ranks=len(scripts),
            )
        )
        yield ranks


def test_answers_come_by_rank_and_epochs_are_told() -> None:
    told: list[EpochOver] = []
    with saying(f"sleep 0.2; echo '{EPOCH}'; echo '{DONE}'", f"echo '{DONE}'") as ranks:
        assert ranks.hear(Done, 60, told.append) == [Done(), Done()]
    assert [row.valid for row in told] == [0.7]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -9 $$", r"Rank 1 of 2 was killed by signal 9 \(SIGKILL\)"),
        ("echo no memory >&2; exit 3", "Rank 1 of 2 exited with 3: no memory"),
        ("echo '{\"kind\":'; kill -9 $$", "Rank 1 of 2 was killed by signal 9"),
        ('echo \'{"kind":"failed","cause":"No data.","fix":"Get some."}\'', "No data. Get some."),
    ],
)
def test_a_rank_that_ends_is_named_with_its_cause(script: str, message: str) -> None:
    with saying("sleep 600", script) as ranks, pytest.raises(LeanRecError, match=message):
        ranks.hear(Done, 60)
    assert all(process.poll() is not None for process in ranks.processes)


def test_the_cause_of_an_end_is_the_rank_that_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks_module, "GRACE", 30.0)
    with (
        saying("echo closed by peer >&2; exit 1", "sleep 0.3; kill -9 $$") as ranks,
        pytest.raises(LeanRecError, match="Rank 1 of 2 was killed"),
    ):
        ranks.hear(Done, 60)


@pytest.mark.slow
def test_a_silent_rank_is_not_waited_for_for_ever() -> None:
    with (
        saying(f"echo '{DONE}'; sleep 60", "sleep 60") as ranks,
        pytest.raises(LeanRecError, match=r"Rank 1 of 2 gave no answer within 2 s"),
    ):
        ranks.hear(Done, 2)
    assert all(process.poll() is not None for process in ranks.processes)


def test_divergence_is_what_it_is() -> None:
    row = '{"kind":"failed","cause":"The loss was not finite.","diverged":true}'
    with saying(f"echo '{row}'") as ranks, pytest.raises(NonFiniteLoss, match="not finite"):
        ranks.hear(Done, 60)


def test_a_rank_that_cannot_start_is_said() -> None:
    with (
        pytest.raises(LeanRecError, match="Rank 0 of 1 exited with 7: no such link"),
        Ranks(1, [("sh", "-c", "echo no such link >&2; exit 7")]),
    ):
        pass


def pipeline(folder: Path, stack: str) -> Pipeline:
    return Pipeline.from_specs(DCNV2, stack, get_device("cpu"), 0, Store(folder))


def weights(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    folder, _ = pipeline.train()
    loaded: dict[str, torch.Tensor] = torch.load(folder / "weights.pt", weights_only=True)
    return loaded


@pytest.mark.slow
def test_two_ranks_train_what_one_process_trains_even_after_a_kill(tmp_path: Path) -> None:
    control, ranks = pipeline(tmp_path, "control"), pipeline(tmp_path, "ddp")
    heard: list[Epoch] = []
    others = set(psutil.Process().children())  # of tests before this one

    def kill(epoch: Epoch) -> None:
        children = set(psutil.Process().children()) - others
        os.kill(max(child.pid for child in children), signal.SIGKILL)

    with pytest.raises(LeanRecError, match=r"killed by signal 9"):
        ranks.train(kill)
    assert not set(psutil.Process().children()) - others

    ranks.train(heard.append)
    assert 0 < len(heard) < 3  # those before the kill were kept
    assert len(ranks.history().epochs) == 3
    for epoch, expected in zip(ranks.history().epochs, control.history().epochs, strict=True):
        assert epoch.valid == pytest.approx(expected.valid, abs=1e-4)
        assert epoch.samples_seen == expected.samples_seen
    for name, tensor in weights(control).items():
        torch.testing.assert_close(weights(ranks)[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_rank_says_what_the_user_has_to_mend(tmp_path: Path) -> None:
    job = pipeline(tmp_path, "ddp").job().model_copy(update={"ranks": 1})
    with Ranks(1) as ranks:
        ranks.begin(job)
        with pytest.raises(LeanRecError, match=r"The recipe is for 2 ranks"):
            ranks.hear(Ready, 300)


@pytest.mark.cuda
def test_a_rank_on_cuda_counts_what_nccl_sends(tmp_path: Path) -> None:
    cuda = get_device("cuda")
    made = Pipeline.from_specs(DCNV2, "ddp(ranks=1)", cuda, 0, Store(tmp_path))
    assert made.data_digest  # the rank reads what is made here
    with Ranks(1) as ranks:
        ranks.begin(made.job())
        ranks.hear(Ready, 300)
        (window,) = ranks.order(Order(picks=(0, 1)), 100)
    assert window.loss == pytest.approx(0.69, abs=0.1)
    weights = made.fresh_model(cuda.torch_device).parameters()
    assert window.payload >= 2 * sum(p.nbytes for p in weights)
