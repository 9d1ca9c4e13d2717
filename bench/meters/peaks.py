"""The best that this machine reaches: FLOP/s and bytes/s, the two roofs of a roofline.

Source of the triad: McCalpin's STREAM, a = b + s·c, counted as three arrays moved. Best of a few.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from bench.device import Device

SIDE = 1024  # of the square matrices
TRIAD = 1 << 24  # float32 numbers in an array of the triad: 64 MiB, more than caches hold
REPEATS = 20


def peak_flops(device: Device, side: int = SIDE) -> float:
    """FLOP/s of a product of two float32 matrices, by torch.matmul, on the threads now set."""
    a, b, to = (torch.rand(side, side, device=device.torch_device) for _ in range(3))
    return 2 * side**3 / _best(lambda: torch.matmul(a, b, out=to), device)


def peak_bandwidth(device: Device, numbers: int = TRIAD) -> float:
    """Bytes a second of a triad over float32 arrays, on the threads now set."""
    b, c, to = (torch.ones(numbers, device=device.torch_device) for _ in range(3))
    return 3 * 4 * numbers / _best(lambda: torch.add(b, c, alpha=2.0, out=to), device)


def _best(work: Callable[[], object], device: Device) -> float:
    """Seconds of the fastest of REPEATS, after one that brings memory in."""
    spent = []
    with torch.inference_mode():
        for _ in range(1 + REPEATS):
            start = time.perf_counter()
            work()
            if device.synchronize is not None:
                device.synchronize()
            spent.append(time.perf_counter() - start)
    return min(spent[1:])
