"""A CUDA device and its driver, faked at the boundary of torch.cuda and NVML."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from bench.device import Device, get_device


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Gives the threads back that a test has taken: trials in this process set them."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Device:
    """The device "cuda", on a machine that may have none. Synchronisations are counted."""
    properties = SimpleNamespace(
        name="Fake GPU",
        uuid="1234-abcd",
        total_memory=80 * 2**30,
        major=9,
        minor=0,
        multi_processor_count=132,
    )
    stats = {
        "allocated_bytes.all.current": 10,
        "allocated_bytes.all.peak": 30,
        "reserved_bytes.all.current": 20,
        "reserved_bytes.all.peak": 40,
        "num_alloc_retries": 2,
    }
    for name, value in {
        "is_available": lambda: True,
        "current_device": lambda: 1,
        "synchronize": lambda device=None: None,
        "get_device_properties": lambda device: properties,
        "memory_stats": lambda device: stats,
        "memory_allocated": lambda device: stats["allocated_bytes.all.current"],
        "reset_peak_memory_stats": lambda device: stats.update(
            {
                "allocated_bytes.all.peak": stats["allocated_bytes.all.current"],
                "reserved_bytes.all.peak": stats["reserved_bytes.all.current"],
            }
        ),
        "get_allocator_backend": lambda: "native",
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return get_device("cuda")


class FakeNvml:
    """A driver's state; what is absent from `answers` is refused as not supported."""

    def __init__(self) -> None:
        self.opened = 0
        self.answers: dict[str, Any] = {}

    def ask(self, name: str) -> Any:
        if name not in self.answers:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        answer = self.answers[name]
        return answer() if callable(answer) else answer


@pytest.fixture
def fake_nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """NVML with one GPU, the one of `fake_cuda`."""
    nvml = FakeNvml()

    def handle(uuid: str) -> str:
        assert uuid == "GPU-1234-abcd"
        return "handle"

    def open_or_close(step: int) -> None:
        nvml.opened += step

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: open_or_close(1))
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: open_or_close(-1))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)
    for name in (
        "TotalEnergyConsumption",
        "MemoryInfo",
        "PersistenceMode",
        "ClockInfo",
        "MaxClockInfo",
        "CurrentClocksEventReasons",
        "MigMode",
        "ComputeRunningProcesses",
        "EccMode",
        "TotalEccErrors",
    ):
        monkeypatch.setattr(
            pynvml, f"nvmlDeviceGet{name}", lambda *arguments, name=name: nvml.ask(name)
        )
    return nvml
