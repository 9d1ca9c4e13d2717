"""The best that this machine reaches: FLOP/s and bytes/s, the two roofs of a roofline.

Work is timed in pieces of milliseconds, each by the fastest of a few passes, so that a host that
interrupts now and then still shows what it can do. Source of the triad: McCalpin's STREAM,
a = b + s·c, counted as three arrays moved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from bench.device import Device

SIDES = (512, 1024)  # of the square matrices
TRIAD = 1 << 24  # float32 numbers in an array of the triad: 64 MiB, more than caches hold
PIECE = 1 << 19  # of them
PASSES = 20


def peak_flops(device: Device, sides: Sequence[int] = SIDES) -> float:
    """FLOP/s of the best product of two float32 matrices, by torch.matmul, on the threads set."""
    return max(_product(device, side) for side in sides)


def peak_bandwidth(device: Device, numbers: int = TRIAD) -> float:
    """Bytes a second of a triad over float32 arrays, on the threads set.

    Whole arrays pass between two visits of a piece, so that no cache holds it.
    """
    arrays = (torch.ones(numbers, device=device.torch_device) for _ in range(3))
    b, c, to = (array.split(PIECE) for array in arrays)

    def triad(piece: int) -> Callable[[], object]:
        return lambda: torch.add(b[piece], c[piece], alpha=2.0, out=to[piece])

    return 3 * 4 * numbers / _best([triad(piece) for piece in range(len(to))], device)


def _product(device: Device, side: int) -> float:
    a, b, to = (torch.rand(side, side, device=device.torch_device) for _ in range(3))
    return 2 * side**3 / _best([lambda: torch.matmul(a, b, out=to)], device)


def _best(pieces: Sequence[Callable[[], object]], device: Device) -> float:
    """Seconds of all pieces, each by its fastest pass after one that brings memory in."""
    passes: list[list[float]] = []
    with torch.inference_mode():
        for _ in range(1 + PASSES):
            spent = []
            for work in pieces:
                start = time.perf_counter()
                work()
                if device.synchronize is not None:
                    device.synchronize()
                spent.append(time.perf_counter() - start)
            passes.append(spent)
    return math.fsum(map(min, zip(*passes[1:], strict=True)))
