"""`leanrec train` and `leanrec speed`: seeds in processes of their own, tables, JSON, mistakes."""

from __future__ import annotations

import io
import math
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from front_door import Leanrec, environment, until
from rich.console import Console

from baselines.base import BASELINES
from bench import speed, training
from bench.campaign import artefact_store
from bench.device import get_device
from bench.pipeline import Pipeline
from bench.speed import Goal, Peer, SpeedRow, race, rate_row, time_row
from bench.training_table import show_trained, summary

TINY = 'dcnv2(dataset="planted(rows=2000, ids=100)", width=16, depth=1)'
BROKEN = """
from dataclasses import dataclass
from baselines.base import Recipe, baseline
from baselines.models.dcnv2 import DCNv2Baseline

@baseline("{name}")
@dataclass(frozen=True)
class Broken(DCNv2Baseline):
    '''Two fields and a fault.'''

    dataset: str = "planted(rows=2000, ids=100)"

    @property
    def recipe(self):
        {fault}
"""


@pytest.fixture
def leanrec(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Leanrec:
    """The command, with a cache of its own."""
    monkeypatch.setenv("LEANREC_CACHE", str(tmp_path / "cache"))
    return Leanrec(monkeypatch, capsys)


class TestTable:
    def test_a_metric_that_no_seed_defines_is_a_dash(self) -> None:
        seeds = [
            training.SeedRow(
                seed=k, metrics={"auc": 0.5 + k / 10, "auc_gap[age]": math.nan}, epochs=1,
                best_epoch=1, rows=9, seconds=1, wall=2, reused=False,
            )
            for k in (0, 1)
        ]  # fmt: skip
        trained = training.Trained(
            baseline="dnn", data="toy", protocol="", device="cpu", threads=1, side_by_side=2,
            directions={"auc": "higher", "auc_gap[age]": "lower"}, best={}, seeds=tuple(seeds),
        )  # fmt: skip
        console = Console(file=io.StringIO(), width=100)
        show_trained(trained, console)
        shown = console.file.getvalue()
        assert re.search(r"auc ↑ .*0\.5500 ± 0\.0707", shown)
        assert re.search(r"auc_gap\[age\] ↓ *│ – *│ – *│ – *│", shown)
        gap = summary(trained)["metrics"][1]
        assert gap["values"] == [None, None]
        assert gap["sd"] is None
        one = summary(trained.model_copy(update={"seeds": trained.seeds[:1]}))["metrics"][0]
        assert (one["mean"], one["sd"]) == (0.5, None)


class TestTrain:
    @pytest.mark.slow
    def test_seeds_are_trained_judged_and_kept_for_every_run(self, leanrec: Leanrec) -> None:
        said = leanrec("train", TINY, "--seeds", 1)
        assert said.code == 0
        assert re.search(r"seed 0, epoch 1: loss 0\.\d+, valid 0\.\d+, [\d,]+ samples/s", said.err)
        assert "Planted clicks: 2000 rows" in said.out
        assert "[split " in said.out
        (first,) = re.findall(r"auc ↑ [^\n]*?(0\.\d{4})", said.out)
        assert not re.search(r"auc ↑ .*±", said.out)  # one seed has no deviation
        assert "best attainable" in said.out
        assert "auc_gap[popularity] ↓" in said.out

        again = leanrec("train", TINY, "--seeds", 2, "--json")
        assert again.err.count("trained before") == 1
        assert re.search(r"seed 1, epoch 1: ", again.err)
        auc = next(m for m in again.json["metrics"] if m["name"] == "auc")
        assert auc["mean"] == pytest.approx(sum(auc["values"]) / 2)
        assert auc["sd"] == pytest.approx(abs(auc["values"][0] - auc["values"][1]) / 2**0.5)
        assert 0.5 < auc["mean"] < auc["best_attainable"] < 1
        assert f"{auc['values'][0]:.4f}" == first
        assert [seed["seed"] for seed in again.json["seeds"]] == [0, 1]
        assert again.json["samples_a_second"] > 0
        run = Pipeline.from_specs(TINY, "control", get_device("cpu"), 1, artefact_store())
        assert not run.train()[1]

    @pytest.mark.slow
    def test_a_model_that_is_complete_when_built_is_judged(self, leanrec: Leanrec) -> None:
        spec = 'popularity(dataset="planted(rows=3000, ids=50, users=100)")'
        said = leanrec("train", spec, "--seeds", 1, "--json")
        assert said.code == 0
        assert said.json["samples_a_second"] is None
        assert said.json["seeds"][0]["rows"] == 0

    @pytest.mark.slow
    def test_a_users_own_baseline_is_trained(self, leanrec: Leanrec, tmp_path: Path) -> None:
        mine = tmp_path / "mine.py"
        fault = "return Recipe(epochs=1, lr=0.01)"
        mine.write_text(BROKEN.format(name="mine-trained", fault=fault))
        said = leanrec("train", "mine-trained", "--seeds", 1, "--plugin", mine, "--json")
        assert said.code == 0
        assert said.json["seeds"][0]["epochs"] == 1
        del BASELINES._classes["mine-trained"]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("fault", "cause"),
        [
            ("return Recipe(lr=1e38)", "mine-broken diverged with seed"),
            ("raise RuntimeError('no rate')", "RuntimeError: no rate"),
            ("import os; os._exit(7)", "exited with 7"),
            ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
        ],
    )
    def test_a_seed_that_fails_is_2_with_its_cause(
        self, leanrec: Leanrec, tmp_path: Path, fault: str, cause: str
    ) -> None:
        mine = tmp_path / "mine.py"
        mine.write_text(BROKEN.format(name="mine-broken", fault=fault))
        said = leanrec("train", "mine-broken", "--seeds", 1, "--plugin", mine)
        del BASELINES._classes["mine-broken"]
        assert said.code == 2
        assert cause in said.text

    @pytest.mark.parametrize(
        ("arguments", "cause"),
        [
            (["dcnv3"], "Did you mean dcnv2"),
            (["dcnv2(widht=3)"], "has no parameter 'widht'"),
            (['dcnv2(dataset="nothing")'], "Unknown data set 'nothing'"),
            ([TINY, "--seeds", 0], "equal to 1"),
            ([TINY, "--device", "abacus"], "abacus"),
            ([TINY, "--plugin", "nowhere.py"], "does not exist"),
        ],
    )
    def test_mistakes_are_2_and_start_nothing(
        self, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch, arguments: list[str], cause: str
    ) -> None:
        monkeypatch.setattr(training.subprocess, "Popen", None)
        said = leanrec("train", *arguments)
        assert said.code == 2
        assert cause in said.text

    def test_processors_are_divided_among_seeds_on_the_cpu_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(training, "all_threads", lambda: 4)
        assert [training.side_by_side(n, "cpu") for n in (1, 3, 9)] == [1, 3, 4]
        assert training.side_by_side(9, "cuda") == 1


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_trained_and_leaves_no_process(tmp_path: Path) -> None:
    spec = 'dcnv2(dataset="planted(rows=200_000, ids=1_000)")'
    command = subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.cli", "train", spec, "--seeds", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=environment(LEANREC_CACHE=str(tmp_path)),
    )  # fmt: skip
    assert command.stderr is not None
    assert "epoch 1" in command.stderr.readline()
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=300)
    assert command.returncode == 2
    assert "Go on with the same command." in said
    assert list((tmp_path / "artefacts" / "trained").glob("*.checkpoint/progress.json"))

    def gone() -> bool:
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
        return str(tmp_path) not in listed.stdout

    assert until(gone)


class TestSpeed:
    @pytest.fixture
    def rows(self, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
        """Two works that are there at once; what `quick` was for each that was asked."""
        asked: list[bool] = []

        def made(quick: bool) -> list[SpeedRow]:
            asked.append(quick)
            return [
                SpeedRow(
                    "a work", "samples/s", 980.0, 1000.0, 0.98, (0.975, 0.985),
                    Goal("at least", 0.97), Peer("Other", None), "10 fields",
                ),
                SpeedRow("a read", "s", 2.0, goal=Goal("at most", 1.0, "ours")),
            ]  # fmt: skip

        monkeypatch.setattr(speed, "works", lambda: ["one", "two"])
        monkeypatch.setattr(
            speed.importlib, "import_module", lambda name: SimpleNamespace(rows=made)
        )
        return asked

    def test_the_table_holds_ours_the_bare_and_the_goals(
        self, leanrec: Leanrec, rows: list[bool]
    ) -> None:
        said = leanrec("speed", "one")
        assert said.code == 0
        assert rows == [False]
        for part in ("a work", "980 samples/s", "0.98 (0.975 to 0.985)", "at least 0.97 × bare",
                     "holds", "fails", "Other not measured", "a work: 10 fields"):  # fmt: skip
            assert part in said.out

    def test_all_works_are_timed_where_none_is_named(
        self, leanrec: Leanrec, rows: list[bool]
    ) -> None:
        told = leanrec("speed", "--json").json
        assert rows == [False, False]
        assert [row["verdict"] for row in told] == ["holds", "fails"] * 2
        assert told[0]["interval"] == [0.975, 0.985]

    def test_quick_rows_are_held_against_no_goal(self, leanrec: Leanrec, rows: list[bool]) -> None:
        told = leanrec("speed", "one", "--quick", "--json").json
        assert rows == [True]
        assert [(row["goal"], row["verdict"]) for row in told] == [(None, "")] * 2

    def test_an_unknown_work_is_2_before_anything_is_timed(
        self, leanrec: Leanrec, rows: list[bool]
    ) -> None:
        said = leanrec("speed", "one", "three")
        assert said.code == 2
        assert "Known: one, two" in said.text
        assert rows == []


class TestRace:
    def clock(self, monkeypatch: pytest.MonkeyPatch, spent: list[float]) -> None:
        now = [0.0]

        def read() -> float:
            return now[0]

        monkeypatch.setattr(speed.time, "perf_counter", read)
        self.advance = lambda seconds: now.__setitem__(0, now[0] + seconds)

    def test_a_constant_ratio_is_found_exactly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock(monkeypatch, [])
        made = race(lambda: self.advance(2.0), lambda: self.advance(1.0), pairs=4)
        assert (made.ours, made.bare) == (2.0, 1.0)
        assert made.ratio == made.low == made.high == pytest.approx(2.0)
        assert rate_row("w", "x/s", 10.0, made).ratio == pytest.approx(0.5)
        assert time_row("w", made).ratio == pytest.approx(2.0)

    def test_the_interval_is_students_over_the_pairs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Log ratios 0 and 2 (in units of log 2): mean 1, t(1) = 12.7062, s/√n = 1."""
        self.clock(monkeypatch, [])
        durations = iter([1.0, 1.0, 4.0])
        made = race(lambda: self.advance(next(durations)), lambda: self.advance(1.0), pairs=2)
        assert made.ratio == pytest.approx(2.0)
        assert made.high / made.ratio == pytest.approx(2**12.7062, rel=1e-4)
        assert made.low * made.high == pytest.approx(made.ratio**2)

    def test_pairs_alternate_in_their_order(self) -> None:
        order: list[str] = []
        race(lambda: order.append("a"), lambda: order.append("b"), pairs=3)
        assert "".join(order) == "ab" + "abbaab"

    def test_one_pair_is_refused(self) -> None:
        with pytest.raises(speed.LeanRecError, match="no interval"):
            race(lambda: None, lambda: None, pairs=1)

    @pytest.mark.parametrize(
        ("goal", "verdict"),
        [
            (None, ""),
            (Goal("at least", 0.9), "holds"),
            (Goal("at least", 1.0), "unclear"),
            (Goal("at least", 1.2), "fails"),
            (Goal("at most", 1.2), "holds"),
            (Goal("at least", 90, "ours"), "holds"),
            (Goal("at least", 4, "peer"), "holds"),
            (Goal("at least", 6, "peer"), "fails"),
        ],
    )
    def test_a_goal_holds_where_the_whole_interval_does(
        self, goal: Goal | None, verdict: str
    ) -> None:
        row = SpeedRow(
            "w", "x/s", 100.0, 95.0, 1.05, (0.95, 1.15), goal, Peer("Other", 20.0, 5.0, (4.5, 5.5))
        )
        assert row.verdict == verdict

    def test_a_peer_that_is_not_there_decides_nothing(self) -> None:
        row = SpeedRow("w", "x/s", 100.0, goal=Goal("at least", 4, "peer"), peer=Peer("Other"))
        assert row.verdict == ""
