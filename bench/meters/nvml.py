"""NVML: the handle of the GPU that torch measures, and why there may be none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pynvml
import torch

from bench.device import Device


class NotMeasured(Exception):  # noqa: N818 - a result with its reason, not a fault
    """Why a number was not measured."""


@contextmanager
def open_gpu(device: Device) -> Iterator[Any]:
    """NVML's handle of `device`, found by its UUID, for CUDA_VISIBLE_DEVICES renumbers devices.

    Raises NotMeasured with the reason where there is none, or where NVML refuses what is asked of
    it inside.
    """
    if device.torch_device.type != "cuda":
        raise NotMeasured(f"the device {device.name!r} has no NVML counters")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NotMeasured(f"NVML does not start: {error}") from error
    try:
        uuid = torch.cuda.get_device_properties(device.torch_device).uuid
        yield pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError as error:
        raise NotMeasured(f"NVML refuses: {error}") from error
    finally:
        pynvml.nvmlShutdown()
