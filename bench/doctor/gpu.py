"""What the GPU's driver says of its state, through NVML."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pynvml

from bench.device import Device
from bench.doctor.finding import Finding, judge, unseen
from bench.meters.nvml import NotMeasured, open_gpu

_SLOWED = {
    "heat": pynvml.nvmlClocksEventReasonSwThermalSlowdown
    | pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    "power": pynvml.nvmlClocksEventReasonSwPowerCap
    | pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    "hardware": pynvml.nvmlClocksEventReasonHwSlowdown,
}


def gpu_findings(device: Device) -> list[Finding]:
    """Every check of the GPU; none where the device is not one."""
    if device.torch_device.type != "cuda":
        return []
    return [_check(device, name, why, look) for name, (why, look) in _CHECKS.items()]


Look = Callable[[str, str, Any], Finding]


def _check(device: Device, name: str, why: str, look: Look) -> Finding:
    try:
        with open_gpu(device) as gpu:
            return look(name, why, gpu)
    except NotMeasured as error:
        return unseen(name, why, str(error))


def _persistence(name: str, why: str, gpu: Any) -> Finding:
    on = bool(pynvml.nvmlDeviceGetPersistenceMode(gpu))
    return judge(name, "on" if on else "off", why, "sudo nvidia-smi -pm 1", warn=not on)


def _clocks(name: str, why: str, gpu: Any) -> Finding:
    now = pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM)
    most = pynvml.nvmlDeviceGetMaxClockInfo(gpu, pynvml.NVML_CLOCK_SM)
    reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    slowed = [cause for cause, mask in _SLOWED.items() if reasons & mask]
    observed = f"SM at {now} of {most} MHz, slowed by {', '.join(slowed) or 'nothing'}"
    fix = "Lock the clock at one it can hold: sudo nvidia-smi --lock-gpu-clocks=MHZ"
    return judge(name, observed, why, fix, warn=bool(slowed))


def _mig(name: str, why: str, gpu: Any) -> Finding:
    on = pynvml.nvmlDeviceGetMigMode(gpu)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    fix = "Say so beside every number, or measure on a whole GPU."
    return judge(name, "on" if on else "off", why, fix, warn=on)


def _others(name: str, why: str, gpu: Any) -> Finding:
    pids = {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)}
    others = len(pids - {os.getpid()})
    fix = "Stop them; 'nvidia-smi' names them."
    return judge(name, f"{others} beside this one", why, fix, bad=others > 0)


def _ecc(name: str, why: str, gpu: Any) -> Finding:
    on = pynvml.nvmlDeviceGetEccMode(gpu)[0] == pynvml.NVML_FEATURE_ENABLED
    errors = (
        pynvml.nvmlDeviceGetTotalEccErrors(
            gpu, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
        )
        if on
        else 0
    )
    observed = f"on, {errors} uncorrected errors" if on else "off"
    return judge(name, observed, why, "Have the GPU replaced.", bad=errors > 0)


_CHECKS: dict[str, tuple[str, Look]] = {
    "GPU persistence": ("Without it the driver unloads between processes.", _persistence),
    "GPU clocks": (
        "A clock that heat or power lowers makes the later arm the slower one. NVML does not say "
        "whether the clock is locked.",
        _clocks,
    ),
    "GPU partition (MIG)": ("A partition has a share of the GPU's units and bandwidth.", _mig),
    "GPU processes": ("Other processes share its units, caches and memory.", _others),
    "GPU memory errors (ECC)": ("ECC costs bandwidth; uncorrected errors spoil results.", _ecc),
}
