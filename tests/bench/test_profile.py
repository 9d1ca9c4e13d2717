from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor

from baselines.errors import LeanRecError
from bench.device import Device, get_device
from bench.meters.profile import ACTIVE_STEPS, WARMUP_STEPS, Profile, profile

M, K, N = 32, 64, 16


def work() -> dict[str, tuple]:
    weight = torch.randn(K, N)
    batches = [(torch.randn(M, K),) for _ in range(3)]
    return {
        "control": (lambda x: x @ weight, batches),
        'int8-linear(note="Ünï/code")': (lambda x: (x @ weight).relu(), batches),
    }


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> list[Profile]:
    return profile(work(), tmp_path_factory.mktemp("profile"), get_device("cpu"))


def test_a_kernel_of_known_flops_is_measured(profiles: list[Profile]) -> None:
    for arm in profiles:
        assert arm.flops == ACTIVE_STEPS * 2 * M * K * N


def test_the_top_operators_are_ordered_and_share_the_whole(profiles: list[Profile]) -> None:
    for arm in profiles:
        times = [row["self_us"] for row in arm.operators]
        assert times == sorted(times, reverse=True)
        assert sum(row["share"] for row in arm.operators) == pytest.approx(1.0)
    product = next(row for row in profiles[0].operators if row["name"] == "aten::mm")
    assert product["calls"] == ACTIVE_STEPS
    assert not [r for r in profiles[0].operators if r["name"].startswith(("Profiler", "control"))]


def test_each_arm_has_a_folder_of_its_own_with_one_trace(profiles: list[Profile]) -> None:
    assert [arm.arm for arm in profiles] == list(work())
    assert len({arm.trace.parent for arm in profiles}) == 2
    assert [len(list(arm.trace.parent.glob("*.pt.trace.json"))) for arm in profiles] == [1, 1]


def test_a_trace_has_shapes_and_memory_and_names_no_host(profiles: list[Profile]) -> None:
    text = profiles[0].trace.read_text()
    trace = json.loads(text)
    product = next(e for e in trace["traceEvents"] if e.get("name") == "aten::mm")
    assert product["args"]["Input Dims"] == [[M, K], [K, N]]
    assert any(e.get("name") == "[memory]" for e in trace["traceEvents"])
    assert socket.gethostname() not in (trace["host_name"], profiles[0].trace.name.split(".")[0])
    assert str(profiles[0].trace.parent) not in text


def test_warm_up_is_not_in_the_trace(tmp_path: Path) -> None:
    calls: list[int] = []

    def call(x: Tensor) -> Tensor:
        calls.append(1)
        return x @ x

    (arm,) = profile({"a": (call, [(torch.ones(4, 4),)])}, tmp_path, get_device("cpu"))
    assert len(calls) == WARMUP_STEPS + ACTIVE_STEPS
    assert arm.flops == ACTIVE_STEPS * 2 * 4**3


def test_a_second_pass_keeps_the_first(tmp_path: Path) -> None:
    once = {"a": (torch.neg, [(torch.ones(4),)])}
    first = profile(once, tmp_path, get_device("cpu"))[0].trace
    second = profile(once, tmp_path, get_device("cpu"))[0].trace
    assert first != second
    assert first.exists()


def test_an_asynchronous_device_finishes_inside_its_step(async_device, tmp_path: Path) -> None:
    call = async_device.deferred(lambda x: (x @ x)[:, 0])
    (arm,) = profile({"a": (call, [(torch.ones(8, 8),)])}, tmp_path, async_device.device)
    assert arm.trace.exists()
    assert not async_device._pending


def test_a_folder_that_cannot_be_made_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanRecError, match=r"cannot be written.*Choose another --out"):
        profile(work(), tmp_path / "file", get_device("cpu"))


def test_tensorboards_own_loader_opens_the_traces(profiles: list[Profile], tmp_path: Path) -> None:
    from torch_tb_profiler.profiler.data import RunProfileData
    from torch_tb_profiler.profiler.run_generator import RunGenerator

    for arm in profiles:
        data = RunProfileData.parse("worker", None, str(arm.trace), str(tmp_path))
        run = RunGenerator("worker", None, data).generate_run_profile()
        assert {view.display_name for view in run.views} >= {"Overview", "Operator", "Memory"}
        assert data.steps_names == [str(WARMUP_STEPS + i) for i in range(ACTIVE_STEPS)]


@pytest.mark.slow
def test_tensorboard_finds_one_run_for_each_arm(profiles: list[Profile]) -> None:
    from torch_tb_profiler.io import Cache
    from torch_tb_profiler.profiler.loader import RunLoader

    for arm in profiles:
        with Cache() as cache:
            run = RunLoader(arm.trace.parent.name, str(arm.trace.parent), cache).load()
        assert run.workers == [arm.trace.parent.name]


@pytest.mark.cuda
def test_a_real_cuda_kernel_is_in_the_trace(tmp_path: Path) -> None:
    device: Device = get_device("cuda")
    batch = device.move((torch.randn(512, 512),))
    (arm,) = profile({"a": (lambda x: x @ x, [batch])}, tmp_path, device)
    categories = {e.get("cat") for e in json.loads(arm.trace.read_text())["traceEvents"]}
    assert "kernel" in categories
    assert arm.operators[0]["self_us"] > 0
