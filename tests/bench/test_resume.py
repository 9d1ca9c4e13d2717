"""Runs that are killed, interrupted and run beside each other lose and repeat nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_worker import FakeWorkers
from front_door import TINY, environment, tiny_suite, until

from bench import runner
from bench.campaign import artefact_store
from bench.device import get_device
from bench.plan import make_plan
from bench.protocol import Protocol
from bench.records import read_trials
from bench.run import Run
from bench.runner import Runner
from bench.suite import load_suite
from bench.worker import TrialSpec

pytestmark = pytest.mark.slow

# Controls alone. A margin so wide that noise cannot make the A/A arm suspect.
SUITE = TINY.replace('["prune-unstructured"]', "[]") + "margin = 0.5\n"
KILLS = 8
LONGEST = 5.0  # seconds from a start to its kill: one or two trials further


class Started:
    """`leanrec run`, in a process of its own."""

    def __init__(self, suite: Path, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        command = [sys.executable, "-m", "bench.cli", "run", suite, "--out", folder, "--resume"]
        self.process = subprocess.Popen(
            [*map(str, command)],
            env=environment(LEANREC_CACHE=str(cache)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def end(self, timeout: float = 900) -> tuple[int, str]:
        """The exit code and what was printed, once it has ended."""
        said, _ = self.process.communicate(timeout=timeout)
        assert "Traceback" not in said, said
        return self.process.returncode, said

    def ends_within(self, seconds: float) -> bool:
        """Whether it ends by itself in that time."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self, number: int) -> tuple[int, str]:
        """Send the signal; what came of it."""
        self.process.send_signal(number)
        return self.end(120)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """A cache that nothing else uses, so that it tells whose a worker is."""
    folder = tmp_path / "cache"
    yield folder
    for pid in workers(folder):
        os.kill(pid, signal.SIGKILL)


def workers(cache: Path) -> list[int]:
    """The worker processes that use `cache`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_worker = b"bench.worker" in (entry / "cmdline").read_bytes()
            if is_worker and str(cache).encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "records").glob("*.jsonl")}


def planned_trials(suite: Path, folder: Path) -> set[str]:
    """The ids of all trials of a run that nothing disturbs."""
    plan = make_plan(load_suite(str(suite)), get_device("cpu"), artefact_store())
    fake = FakeWorkers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run_worker", fake)
        Runner(folder, plan, artefact_store(), {}).run()
    return {spec.id for spec in fake.specs}


def assert_whole(folder: Path, planned: set[str]) -> None:
    """Every planned trial is there, once, whole, and well."""
    trials, problems = read_trials(folder / "records")
    assert problems == []
    assert sorted(t.head.id for t in trials) == sorted(planned)
    assert {f"{t.head.id}.jsonl" for t in trials} == contents(folder).keys()
    assert [t.end.cause for t in trials if t.end.status != "ok"] == []
    summary = Run.load(folder).summary
    assert summary is not None
    assert summary.finished


def assert_usable(cache: Path) -> None:
    """Every artefact is whole, and nothing half made lies beside it."""
    artefacts = [p for p in (cache / "artefacts").glob("*/*") if p.suffix != ".lock"]
    kinds = {path.parent.name for path in artefacts}
    assert kinds == {"data", "trained"}
    for path in artefacts:
        assert path.is_dir()
        assert not path.suffix, f"{path} was left half made"
        assert json.loads((path / "key.json").read_text())
        for file in path.glob("*.pt"):
            torch.load(file, weights_only=True)


def test_kills_at_random_moments_lose_and_repeat_nothing(tmp_path: Path, cache: Path) -> None:
    """Eight kills, every fourth a Ctrl-C; a run that ends between them is followed by another."""
    rng = random.Random(20)
    suite = tiny_suite(tmp_path, SUITE)
    planned = planned_trials(suite, tmp_path / "undisturbed")
    folder, runs, kills = tmp_path / "run-0", 1, 0
    while kills < KILLS:
        before = contents(folder)
        started = Started(suite, folder, cache)
        interrupt = kills % 4 == 3
        # The interpreter and the command's own imports take a part of the first second.
        moment = rng.uniform(1.0 if interrupt else 0.0, LONGEST)
        if not started.ends_within(moment):
            code, said = started.kill(signal.SIGINT if interrupt else signal.SIGKILL)
            kills += 1
            if interrupt:
                assert code in (0, 2, 130, -signal.SIGINT), said
            else:
                assert code == -signal.SIGKILL
        else:
            assert started.end()[0] == 0
        assert until(lambda: not workers(cache)), "a worker outlived its parent"
        after = contents(folder)
        assert after.items() >= before.items(), "a finished record was lost or changed"
        assert read_trials(folder / "records")[1] == []
        if after.keys() == {f"{trial}.jsonl" for trial in planned} and kills < KILLS:
            assert Started(suite, folder, cache).end()[0] == 0
            assert_whole(folder, planned)
            folder, runs = tmp_path / f"run-{runs}", runs + 1
    before = contents(folder)
    code, said = Started(suite, folder, cache).end()
    assert code == 0, said
    assert contents(folder).items() >= before.items()
    assert_whole(folder, planned)
    assert_usable(cache)
    assert workers(cache) == []


def test_two_runs_at_once_share_artefacts_and_harm_nothing(tmp_path: Path, cache: Path) -> None:
    suite = tiny_suite(tmp_path, SUITE)
    folders = [tmp_path / name for name in ("one", "two")]
    for started in [Started(suite, folder, cache) for folder in folders]:
        code, said = started.end()
        assert code == 0, said
    planned = planned_trials(suite, tmp_path / "undisturbed")
    for folder in folders:
        assert_whole(folder, planned)
    assert_usable(cache)
    trained = [p for p in (cache / "artefacts" / "trained").iterdir() if p.is_dir()]
    assert len(trained) == 2  # one a seed, for both


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path, cache: Path) -> None:
    endless = SUITE.replace("looks = [2]", "looks = [500]")
    suite, folder = tiny_suite(tmp_path, endless), tmp_path / "run"
    first = Started(suite, folder, cache)
    assert until((folder / "plan.json").exists)
    code, said = Started(suite, folder, cache).end()
    assert code == 2
    assert "Another process is writing the run" in said
    assert first.process.poll() is None
    code, said = first.kill(signal.SIGINT)
    assert code == 2
    assert "Interrupted." in said
    assert "--resume" in said
    assert until(lambda: not workers(cache))


def test_a_worker_whose_parent_died_while_it_started_does_nothing(cache: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stderr is not None
    spec = TrialSpec(
        id="toy", mode="train", baseline="toy", stack="control", device="cpu", scenarios=(),
        baseline_spec='dcnv2(dataset="planted(rows=2000, ids=200)")', stack_spec="control",
        process=0, protocol=Protocol(), store=cache, spawned=time.time(),
    )  # fmt: skip
    worker.stdout.close()
    worker.stdin.write(spec.model_dump_json().encode())
    worker.stdin.close()
    said = worker.stderr.read().decode()
    assert worker.wait(300) == 1
    assert said.strip() == "Nobody reads the records."
    assert not cache.exists()
