"""Traces of both arms: what is in them, and that others read them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor

from baselines.errors import LeanRecError
from bench.device import Device, get_device
from bench.meters import profile
from bench.meters.profile import (
    REQUESTS,
    TRACED_REQUESTS,
    Traced,
    cost_of_an_operator,
    part,
    trace,
)
from bench.profiles.parts import REQUEST
from bench.profiles.record import ENOUGH
from bench.profiles.trace import read_trace

M, K, N = 32, 64, 16
CPU = get_device("cpu")
ODD = 'int8-linear(note="Ünï/code")'


def work() -> dict[str, tuple]:
    weight = torch.randn(K, N)
    batches = [(torch.randn(M, K),) for _ in range(3)]
    return {
        "control": (lambda x: x @ weight, batches),
        ODD: (lambda x: (x @ weight).relu(), batches),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Traced]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "_interruptions", lambda: 0)
        return trace(work(), tmp_path_factory.mktemp("profile"), CPU)


@pytest.fixture
def traces(made: dict[str, Traced]) -> dict[str, Path]:
    return {arm: traced.path for arm, traced in made.items()}


def content(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def names(path: Path) -> set[str]:
    return {e["name"] for e in content(path)["traceEvents"] if e.get("cat") == "cpu_op"}


def test_each_arm_has_a_folder_of_its_own_with_its_own_operators(traces: dict[str, Path]) -> None:
    assert list(traces) == list(work())
    assert len({path.parent for path in traces.values()}) == 2
    assert [len(list(p.parent.glob("*.pt.trace.json"))) for p in traces.values()] == [1, 1]
    assert "aten::relu" in names(traces[ODD]) - names(traces["control"])


def test_an_arm_has_its_traced_requests_and_no_others(traces: dict[str, Path]) -> None:
    for path in traces.values():
        events = content(path)["traceEvents"]
        requests = [e for e in events if e["name"] == REQUEST and e.get("ph") == "X"]
        products = [e for e in events if e["name"] == "aten::mm"]
        assert len(requests) == len(products) == TRACED_REQUESTS
        assert read_trace(content(path)).wall_us > 0


def test_a_trace_is_read_as_it_is_written(made: dict[str, Traced]) -> None:
    assert all(content(traced.path) == traced.content for traced in made.values())


@pytest.mark.parametrize(("calm", "kept"), [(ENOUGH, ENOUGH), (ENOUGH - 1, TRACED_REQUESTS)])
def test_interrupted_requests_are_left_out_where_enough_remain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calm: int, kept: int
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(profile, "_interruptions", lambda: min(len(asked), REQUESTS - calm))

    def call(x: Tensor) -> Tensor:
        asked.append(1)
        return x @ x

    traced = trace({"a": (call, [(torch.ones(4, 4),)])}, tmp_path, CPU)["a"]
    products = [e for e in traced.content["traceEvents"] if e["name"] == "aten::mm"]
    assert len(products) == kept
    assert traced.interrupted == TRACED_REQUESTS - calm


def test_a_trace_has_shapes_and_memory_and_names_no_host(traces: dict[str, Path]) -> None:
    text = traces["control"].read_text()
    found = json.loads(text)
    product = next(e for e in found["traceEvents"] if e.get("name") == "aten::mm")
    assert product["args"]["Input Dims"] == [[M, K], [K, N]]
    assert any(e.get("name") == "[memory]" for e in found["traceEvents"])
    assert socket.gethostname() not in (found["host_name"], traces["control"].name.split(".")[0])
    assert str(traces["control"].parent) not in text


def test_arms_are_asked_as_often_by_turns(tmp_path: Path) -> None:
    calls: list[str] = []

    def call(arm: str, x: Tensor) -> Tensor:
        calls.append(arm)
        return x @ x

    batch = [(torch.ones(4, 4),)]
    arms = {a: (lambda x, a=a: call(a, x), batch) for a in ("one", "two")}
    trace(arms, tmp_path, CPU)
    assert calls.count("one") == calls.count("two") == REQUESTS
    turns = [a for a, b in zip(calls, [*calls[1:], ""], strict=True) if a != b]
    assert len(turns) > 4


def test_the_parts_of_a_trace_are_its_owners() -> None:
    steps = [
        {"ph": "X", "cat": "user_annotation", "name": f"ProfilerStep#{n}", "ts": 10 * n, "dur": 10}
        for n in range(4)
    ]
    inside = [{"ph": "X", "name": f"op{n}", "ts": 10 * n + 1, "dur": 2} for n in range(4)]
    meta = {"ph": "M", "name": "process_name", "ts": 0}
    whole = {"host_name": "secret", "traceName": "/a/b", "traceEvents": [meta, *steps, *inside]}
    mine = part(whole, ["a", "b", "a"], "a")
    kept = [e["name"] for e in mine["traceEvents"]]
    assert kept == ["process_name", "ProfilerStep#0", "ProfilerStep#2", "op0", "op2"]
    assert (mine["host_name"], mine["traceName"]) == ("", "")


def test_a_second_pass_keeps_the_first(tmp_path: Path) -> None:
    once = {"a": (torch.neg, [(torch.ones(4),)])}
    first, second = (trace(once, tmp_path, CPU)["a"].path for _ in range(2))
    assert first != second
    assert first.exists()


def test_an_asynchronous_device_finishes_inside_its_request(async_device, tmp_path: Path) -> None:
    call = async_device.deferred(lambda x: (x @ x)[:, 0])
    made = trace({"a": (call, [(torch.ones(8, 8),)])}, tmp_path, async_device.device)
    assert made["a"].path.exists()
    assert not async_device._pending


def test_a_folder_that_cannot_be_made_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanRecError, match=r"cannot be written.*Choose another --out"):
        trace(work(), tmp_path / "file", CPU)


def test_the_profilers_cost_is_a_little() -> None:
    assert 0 <= cost_of_an_operator(CPU) < 1000


def test_tensorboards_own_loader_opens_the_traces(traces: dict[str, Path], tmp_path: Path) -> None:
    from torch_tb_profiler.profiler.data import RunProfileData
    from torch_tb_profiler.profiler.run_generator import RunGenerator

    for path in traces.values():
        data = RunProfileData.parse("worker", None, str(path), str(tmp_path))
        run = RunGenerator("worker", None, data).generate_run_profile()
        assert {view.display_name for view in run.views} >= {"Overview", "Operator", "Memory"}
        assert len(data.steps_names) == TRACED_REQUESTS


@pytest.mark.slow
def test_tensorboard_finds_one_run_for_each_arm(traces: dict[str, Path]) -> None:
    from torch_tb_profiler.io import Cache
    from torch_tb_profiler.profiler.loader import RunLoader

    for path in traces.values():
        with Cache() as cache:
            run = RunLoader(path.parent.name, str(path.parent), cache).load()
        assert run.workers == [path.parent.name]


@pytest.mark.cuda
def test_a_real_cuda_kernel_is_in_the_trace(tmp_path: Path) -> None:
    device: Device = get_device("cuda")
    batch = device.move((torch.randn(512, 512),))
    made = trace({"a": (lambda x: x @ x, [batch])}, tmp_path, device)
    seen = read_trace(made["a"].content, "cuda")
    assert seen.kernels
    assert seen.operators[0].self_us > 0
