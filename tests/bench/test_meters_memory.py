from __future__ import annotations

import mmap
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.device import Device, get_device
from bench.meters import memory
from bench.meters.memory import DeviceMemory, grows, live_tensor_bytes


def test_an_allocation_of_known_bytes_is_measured_exactly() -> None:
    before = live_tensor_bytes()
    tensor = torch.zeros(1000, 10, dtype=torch.float64)
    assert live_tensor_bytes() - before == 80_000
    del tensor
    assert live_tensor_bytes() == before


def test_views_count_once_and_keep_their_whole_storage_alive() -> None:
    before = live_tensor_bytes()
    view = torch.zeros(1000)[:10]
    rows = view.view(2, 5), view[3:]
    assert live_tensor_bytes() - before == 4000
    del view, rows


def test_a_model_in_training_counts_weights_gradients_and_optimiser_state() -> None:
    before = live_tensor_bytes()
    model = nn.Linear(100, 50, bias=False)
    weights = 100 * 50 * 4
    assert live_tensor_bytes() - before == weights
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 100)).sum().backward()
    optimiser.step()
    held = live_tensor_bytes() - before
    assert 4 * weights <= held < 4 * weights + 1000  # weight, gradient, two moments


def test_buffers_count() -> None:
    before = live_tensor_bytes()
    module = nn.Module()
    module.register_buffer("table", torch.zeros(256, dtype=torch.uint8))
    assert live_tensor_bytes() - before == 256


ENDS, PLACES, VALUES = torch.tensor([0, 1, 2, 3, 4]), torch.arange(4), torch.ones(4)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: torch.eye(4).to_sparse_coo(), 4 * 4 + 2 * 4 * 8),
        (lambda: torch.sparse_csr_tensor(ENDS.clone(), PLACES.clone(), VALUES.clone()), 88),
        (lambda: torch.sparse_csc_tensor(ENDS.clone(), PLACES.clone(), VALUES.clone()), 88),
    ],
)
def test_a_sparse_tensor_counts_values_and_indices(make, expected: int) -> None:
    before = live_tensor_bytes()
    sparse = make()
    assert live_tensor_bytes() - before == expected
    del sparse


def test_a_meta_tensor_holds_nothing() -> None:
    before = live_tensor_bytes()
    huge = torch.empty(10**12, device="meta")
    assert live_tensor_bytes() == before
    del huge


def test_resident_bytes_rise_with_memory_that_is_touched() -> None:
    before = memory.rss_bytes()
    with mmap.mmap(-1, 16 << 20) as fresh:  # an allocator may give what is resident already
        fresh.write(b"1" * (16 << 20))
        assert memory.rss_bytes() - before > 12 << 20


def test_the_peak_outlives_what_caused_it_and_can_be_reset() -> None:
    if not memory.reset_peak_rss():
        pytest.skip("this system does not let a process reset its peak")
    start = memory.peak_rss_bytes()
    tensor = torch.ones(64 << 20, dtype=torch.uint8)
    del tensor
    peak = memory.peak_rss_bytes()
    assert peak - start > 48 << 20
    memory.reset_peak_rss()
    assert memory.peak_rss_bytes() < peak


def test_without_proc_the_peak_is_unknown(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    assert memory.peak_rss_bytes() is None
    assert memory.reset_peak_rss() is False


def test_device_memory_leaves_out_what_was_in_use_before(fake_cuda: Device, fake_nvml) -> None:
    fake_nvml.answers["MemoryInfo"] = SimpleNamespace(used=500)
    meter = DeviceMemory(fake_cuda)
    fake_nvml.answers["MemoryInfo"] = SimpleNamespace(used=800)
    assert meter.added_bytes() == 300
    assert fake_nvml.opened == 0


def test_device_memory_that_cannot_be_read_is_not_guessed(fake_cuda: Device, fake_nvml) -> None:
    meter = DeviceMemory(fake_cuda)
    assert meter.added_bytes() is None
    assert "Not Supported" in meter.reason


def test_the_cpu_has_no_device_memory() -> None:
    meter = DeviceMemory(get_device("cpu"))
    assert meter.added_bytes() is None
    assert "cpu" in meter.reason


@pytest.mark.parametrize(
    ("samples", "leaks"),
    [
        ([100, 200, 300, 400, 500], True),
        ([100, 500, 500, 500, 500], False),  # a cache that fills once
        ([100, 200, 100, 200, 100, 200], False),  # comes and goes
        ([500, 400, 300, 200], False),
        ([100, 200, 300], False),  # too few to accuse
        ([], False),
    ],
)
def test_growth_is_told_from_filling_and_breathing(samples: list[int], leaks: bool) -> None:
    assert grows(samples) is leaks


def test_growth_within_the_tolerance_is_noise() -> None:
    assert not grows([0, 5, 9, 16, 20], tolerance=10)
    assert grows([0, 50, 45, 130, 190, 250], tolerance=10)


@given(
    start=st.integers(0, 2**40),
    steps=st.lists(st.integers(1, 2**30), min_size=3, max_size=20),
)
def test_a_leak_at_every_step_is_always_seen(start: int, steps: list[int]) -> None:
    samples = [start + sum(steps[:i]) for i in range(len(steps) + 1)]
    assert grows(samples)
    assert not grows(samples[::-1])
