from __future__ import annotations

import pytest
import torch

from baselines.errors import LeanRecError
from bench.device import Device, get_device


def test_the_cpu_needs_no_synchronise_and_keeps_no_count() -> None:
    cpu = get_device("cpu")
    cpu.reset_peaks()
    assert cpu.synchronize is None
    assert cpu.allocated() is None
    assert cpu.memory_stats() is None
    assert cpu.describe()["name"] == "cpu"


def test_move_keeps_the_order_and_the_values() -> None:
    batch = (torch.arange(3), torch.ones(3, 2))
    moved = get_device("cpu").move(batch)
    assert all(torch.equal(a, b) for a, b in zip(batch, moved, strict=True))


def test_move_waits_until_the_copy_has_ended() -> None:
    waits: list[None] = []
    device = Device("cpu", torch.device("cpu"), lambda: waits.append(None))
    device.move((torch.ones(1),))
    assert len(waits) == 1


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(LeanRecError, match=r"Unknown device 'tpu'.*cpu, cuda"):
        get_device("tpu")


def test_cuda_without_a_device_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LeanRecError) as caught:
        get_device("cuda")
    assert "CUDA" in caught.value.cause
    assert "Nothing was run" in caught.value.consequence
    assert "--device cpu" in caught.value.fix


def test_cuda_is_the_current_device_and_tells_its_memory(fake_cuda: Device) -> None:
    assert fake_cuda.torch_device == torch.device("cuda", 1)
    assert fake_cuda.synchronize is not None
    assert fake_cuda.allocated() == 10
    assert fake_cuda.memory_stats() == {
        "allocated": 10,
        "peak_allocated": 30,
        "reserved": 20,
        "peak_reserved": 40,
        "alloc_retries": 2,
    }
    fake_cuda.reset_peaks()
    assert fake_cuda.memory_stats()["peak_allocated"] == 10
    assert fake_cuda.describe()["kind"] == "Fake GPU"
    assert fake_cuda.describe()["memory_gib"] == 80.0


def test_cuda_synchronises_its_own_device(
    fake_cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    fake_cuda.synchronize()
    assert waited == [torch.device("cuda", 1)]


@pytest.mark.cuda
def test_a_real_cuda_allocation_is_counted_to_the_byte() -> None:
    device = get_device("cuda")
    before = device.allocated()
    (tensor,) = device.move((torch.zeros(1 << 20, dtype=torch.uint8),))
    assert device.allocated() - before == tensor.untyped_storage().nbytes()
    device.reset_peaks()
    assert device.memory_stats()["peak_allocated"] == device.allocated()
