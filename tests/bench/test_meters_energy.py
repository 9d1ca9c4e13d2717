from __future__ import annotations

import itertools

import pynvml
import pytest

from bench.device import Device, get_device
from bench.meters import energy
from bench.meters.energy import measure_energy


@pytest.fixture
def long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which any work takes ten seconds."""
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(energy, "perf_counter", lambda: next(clock))


@pytest.mark.usefixtures("long_enough")
def test_joules_are_the_difference_of_two_readings(fake_cuda: Device, fake_nvml) -> None:
    readings = iter([1_000_000, 3_500_000])
    fake_nvml.answers["TotalEnergyConsumption"] = lambda: next(readings)
    measured = measure_energy(fake_cuda, lambda: None)
    assert measured.joules == 2500.0
    assert measured.seconds == 10.0
    assert measured.reason == ""
    assert fake_nvml.opened == 0


def test_a_window_too_short_for_the_counter_is_not_measured(fake_cuda: Device, fake_nvml) -> None:
    fake_nvml.answers["TotalEnergyConsumption"] = 1
    measured = measure_energy(fake_cuda, lambda: None)
    assert measured.joules is None
    assert "too short" in measured.reason


@pytest.mark.usefixtures("long_enough", "fake_nvml")
def test_a_gpu_without_the_counter_is_not_measured(fake_cuda: Device) -> None:
    measured = measure_energy(fake_cuda, lambda: None)
    assert measured.joules is None
    assert "Not Supported" in measured.reason


def test_without_a_driver_the_work_is_done_and_not_measured(
    fake_cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    done: list[bool] = []
    measured = measure_energy(fake_cuda, lambda: done.append(True))
    assert done == [True]
    assert measured.joules is None
    assert "does not start" in measured.reason


def test_a_cpu_is_never_guessed_from_its_power_limit() -> None:
    measured = measure_energy(get_device("cpu"), lambda: None)
    assert measured.joules is None
    assert "'cpu'" in measured.reason


def test_the_window_ends_when_the_device_has_finished(async_device) -> None:
    done: list[bool] = []
    measure_energy(async_device.device, lambda: async_device.launch(lambda: done.append(True)))
    assert done == [True]
