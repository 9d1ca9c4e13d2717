from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml
import pytest
import torch
from rich.console import Console

from bench.device import Device, get_device
from bench.doctor import Finding, diagnose, print_findings
from bench.doctor import host as host_checks
from bench.doctor import timing as timing_checks
from bench.host import Host

CPU = "sys/devices/system/cpu"
OVERHEAD = timing_checks.overhead_ns


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples as short as they can be; the harness, which takes longest, is said to be quick."""
    monkeypatch.setattr(host_checks, "_SAMPLE_SECONDS", 0.02)
    monkeypatch.setattr(timing_checks, "_READINGS", 2000)
    monkeypatch.setattr(timing_checks, "overhead_ns", lambda synchronize: 90.0)


def found(name: str, host: Host | None = None, device: Device | None = None) -> Finding:
    findings = diagnose(device or get_device("cpu"), host)
    return next(finding for finding in findings if finding.name == name)


def host_with(root: Path, path: str, text: str) -> Host:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    return Host(root)


def test_every_finding_is_whole_and_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing_checks, "overhead_ns", OVERHEAD)
    findings = diagnose(get_device("cpu"))
    assert max(Counter(f.name for f in findings).values()) == 1
    for finding in findings:
        assert finding.observed
        assert finding.why
        assert bool(finding.fix) == (finding.status != "ok")


@pytest.mark.parametrize(
    ("name", "path", "good", "poor", "status"),
    [
        (
            "frequency governor",
            f"{CPU}/cpu0/cpufreq/scaling_governor",
            "performance",
            "ondemand",
            "warn",
        ),
        ("turbo", f"{CPU}/intel_pstate/no_turbo", "1", "0", "warn"),
        ("SMT", f"{CPU}/smt/active", "0", "1", "warn"),
        ("heat", f"{CPU}/cpu0/thermal_throttle/core_throttle_count", "0", "12", "warn"),
        ("cores", "sys/fs/cgroup/cpu.max", "max 100000", "50000 100000", "bad"),
        (
            "transparent huge pages",
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always [madvise] never",
            "[always] madvise never",
            "warn",
        ),
        ("address layout", "proc/sys/kernel/randomize_va_space", "2", "0", "warn"),
        (
            "clock source",
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "tsc",
            "hpet",
            "bad",
        ),
    ],
)
def test_a_host_is_judged_by_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name, path, good, poor, status
) -> None:
    monkeypatch.setattr(host_checks, "usable_cores", lambda: [0, 1])
    assert found(name, host_with(tmp_path, path, good)).status == "ok"
    judged = found(name, host_with(tmp_path, path, poor))
    assert judged.status == status
    assert judged.fix


@pytest.mark.parametrize("name", ["frequency governor", "turbo", "SMT", "heat", "clock source"])
def test_what_cannot_be_seen_is_a_warning_not_ok(tmp_path: Path, name: str) -> None:
    finding = found(name, Host(tmp_path))
    assert finding.status == "warn"
    assert "not visible" in finding.observed


def test_others_at_work_and_stolen_time_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    times = SimpleNamespace(idle=10.0, iowait=0.0, steal=12.0)
    monkeypatch.setattr(psutil, "cpu_times_percent", lambda interval: times)
    assert found("load").status == "bad"
    assert "90 % busy" in found("load").observed
    assert found("stolen time").status == "bad"


def test_an_idle_host_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    times = SimpleNamespace(idle=99.0, iowait=0.5, steal=0.0)
    monkeypatch.setattr(psutil, "cpu_times_percent", lambda interval: times)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert found("load").status == "ok"
    assert found("stolen time").status == "ok"


def test_too_little_memory_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total=8 * 2**30, available=2**29)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert found("memory").status == "bad"


def test_a_full_disk_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr(host_checks.shutil, "disk_usage", lambda path: full)
    assert found("disk of the cache").status == "bad"


def test_a_cache_that_does_not_exist_yet_is_judged_by_where_it_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEANREC_CACHE", str(tmp_path / "not" / "yet"))
    assert "GiB free" in found("disk of the cache").observed
    assert not (tmp_path / "not").exists()


def test_more_threads_than_cores_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing_checks, "usable_cores", lambda: [0])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert found("threads").status == "warn"


@pytest.mark.parametrize(("added", "status"), [(90, "ok"), (300, "warn"), (5000, "bad")])
def test_the_harness_is_held_to_its_own_limit(
    monkeypatch: pytest.MonkeyPatch, added: float, status: str
) -> None:
    monkeypatch.setattr(timing_checks, "overhead_ns", lambda synchronize: added)
    assert found("harness overhead").status == status


def test_the_cost_of_synchronising_stands_beside_it(
    async_device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing_checks, "overhead_ns", OVERHEAD)
    assert "with a synchronise" in found("harness overhead", device=async_device.device).observed


def test_a_cpu_run_asks_nothing_of_a_gpu() -> None:
    assert not [f for f in diagnose(get_device("cpu")) if f.name.startswith("GPU")]


def healthy_gpu() -> dict[str, object]:
    return {
        "PersistenceMode": 1,
        "ClockInfo": 1980,
        "MaxClockInfo": 1980,
        "CurrentClocksEventReasons": pynvml.nvmlClocksEventReasonGpuIdle,
        "MigMode": [pynvml.NVML_DEVICE_MIG_DISABLE] * 2,
        "ComputeRunningProcesses": [SimpleNamespace(pid=os.getpid())],
        "EccMode": [pynvml.NVML_FEATURE_ENABLED] * 2,
        "TotalEccErrors": 0,
    }


def test_a_healthy_gpu_is_ok(fake_cuda: Device, fake_nvml) -> None:
    fake_nvml.answers = healthy_gpu()
    gpu = [f for f in diagnose(fake_cuda) if f.name.startswith("GPU")]
    assert {f.status for f in gpu} == {"ok"}
    assert len(gpu) == 5
    assert fake_nvml.opened == 0


@pytest.mark.parametrize(
    ("name", "answer", "value", "status"),
    [
        ("GPU persistence", "PersistenceMode", 0, "warn"),
        (
            "GPU clocks",
            "CurrentClocksEventReasons",
            pynvml.nvmlClocksEventReasonSwThermalSlowdown,
            "warn",
        ),
        ("GPU partition (MIG)", "MigMode", [pynvml.NVML_DEVICE_MIG_ENABLE] * 2, "warn"),
        ("GPU processes", "ComputeRunningProcesses", [SimpleNamespace(pid=-1)], "bad"),
        ("GPU memory errors (ECC)", "TotalEccErrors", 2, "bad"),
    ],
)
def test_a_disturbed_gpu_is_not(
    fake_cuda: Device, fake_nvml, name: str, answer: str, value: object, status: str
) -> None:
    fake_nvml.answers = healthy_gpu() | {answer: value}
    assert found(name, device=fake_cuda).status == status


def test_a_gpu_that_refuses_an_answer_is_unknown(fake_cuda: Device, fake_nvml) -> None:
    fake_nvml.answers = healthy_gpu()
    del fake_nvml.answers["MigMode"]
    finding = found("GPU partition (MIG)", device=fake_cuda)
    assert finding.status == "warn"
    assert "Not Supported" in finding.observed


def test_findings_print_with_what_to_do_and_without_reading_markup() -> None:
    findings = [
        Finding(name="fine", status="ok", observed="[bold]as it is[/bold]", why="why fine"),
        Finding(name="poor", status="bad", observed="seen", why="why [it] matters", fix="do this"),
    ]
    text = io.StringIO()
    print_findings(Console(file=text, width=100), findings)
    assert "[bold]as it is[/bold]" in text.getvalue()
    assert "why [it] matters" in text.getvalue()
    assert "do this" in text.getvalue()
    assert "why fine" not in text.getvalue()
    assert "1 ok, 0 warn, 1 bad." in text.getvalue()
