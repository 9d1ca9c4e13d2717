"""`leanrec profile`: one trace an arm, of a pass that nothing is timed in; wrong cells are said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from front_door import TINY, Leanrec, tiny_suite

from bench.meters import clock

SUITE = TINY.replace(
    'scenarios = ["single-stream(batch_sizes=[64])"]',
    'scenarios = ["single-stream(batch_sizes=[64])", "train(threads=1)"]',
).replace('stacks = ["prune-unstructured"]', 'stacks = ["prune-unstructured", "bf16"]')


@pytest.fixture
def leanrec(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Leanrec:
    """The command, in this process."""
    return Leanrec(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Whatever a command sets the number of threads to, one is what the next test finds."""
    yield
    torch.set_num_threads(1)


def operators(trace: Path) -> set[str]:
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return {event["name"] for event in events if event.get("cat") == "cpu_op"}


class TestTraces:
    @pytest.mark.parametrize(
        ("cell", "arms", "some"),
        [
            (
                "toy-prune_unstructured-single_stream-cpu",
                {"control", "prune-unstructured"},
                "aten::addmm",
            ),
            ("toy-control-single_stream-cpu", {"control"}, "aten::embedding"),
            ("toy-bf16-train-cpu", {"control", "bf16"}, "aten::embedding_backward"),
        ],
    )
    def test_each_arm_has_a_trace_that_tensorboard_opens(
        self, tmp_path: Path, leanrec: Leanrec, cell: str, arms: set[str], some: str
    ) -> None:
        suite, to = tiny_suite(tmp_path, SUITE), tmp_path / "träces 1"
        said = leanrec("profile", cell, "--suite", suite, "--out", to)
        assert said.code == 0, said.text
        assert {path.name for path in to.iterdir()} == arms
        for arm in arms:
            (trace,) = (to / arm).glob("*.pt.trace.json")
            assert some in operators(trace)
            assert f"{arm}, batch" in said.out
            assert str(trace) in said.out
        assert f"tensorboard --logdir {to}" in said.out

    def test_bf16_is_seen_in_its_arm_alone(self, tmp_path: Path, leanrec: Leanrec) -> None:
        to = tmp_path / "traces"
        cell = "toy-bf16-single_stream-cpu"
        leanrec("profile", cell, "--suite", tiny_suite(tmp_path, SUITE), "--out", to)
        seen = {arm: operators(*(to / arm).glob("*.json")) for arm in ("control", "bf16")}
        assert "aten::_to_copy" in seen["bf16"] - seen["control"]

    def test_nothing_is_timed(
        self, tmp_path: Path, leanrec: Leanrec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def timed(*arguments: object) -> None:
            raise AssertionError("the profiling pass was timed")

        for name in ("time_each", "time_window"):
            monkeypatch.setattr(clock, name, timed)
            monkeypatch.setattr(f"bench.blocks.{name}", timed)
        said = leanrec(
            "profile", "toy-control-single_stream-cpu", "--suite", tiny_suite(tmp_path, SUITE),
            "--out", tmp_path / "t",
        )  # fmt: skip
        assert said.code == 0, said.text


class TestMistakes:
    @pytest.mark.parametrize(
        ("cell", "said"),
        [
            ("toy-bf17-single_stream-cpu", "It has: toy-control-single_stream-cpu"),
            ("toy-prune_unstructured-train-cpu", "changes nothing that training shows"),
            ("toy-bf16-quality-cpu", "not timed"),
        ],
    )
    def test_a_cell_that_cannot_be_profiled_is_2(
        self, tmp_path: Path, leanrec: Leanrec, cell: str, said: str
    ) -> None:
        suite, to = tiny_suite(tmp_path, SUITE), tmp_path / "t"
        ended = leanrec("profile", cell, "--suite", suite, "--out", to)
        assert ended.code == 2
        assert said in ended.text
        assert not to.exists()

    def test_a_folder_that_cannot_be_written_is_2(self, tmp_path: Path, leanrec: Leanrec) -> None:
        suite = tiny_suite(tmp_path, SUITE)
        ended = leanrec(
            "profile", "toy-control-single_stream-cpu", "--suite", suite, "--out", suite / "t"
        )
        assert ended.code == 2
        assert "cannot be written" in ended.text
