"""The device room: the one place that knows how ``cpu`` and ``cuda`` differ."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from baselines.base import Batch
from baselines.errors import LeanRecError


@dataclass(frozen=True)
class Device:
    """Where a cell is measured.

    synchronize waits until all work given to the device has ended. It is None where a call returns
    only when its work is done, so that a timing loop pays for no empty call.
    """

    name: str
    torch_device: torch.device
    synchronize: Callable[[], None] | None = None

    def move(self, batch: Batch) -> Batch:
        """The batch on this device; the copy has ended when this returns."""
        moved = tuple(tensor.to(self.torch_device) for tensor in batch)
        if self.synchronize is not None:
            self.synchronize()
        return moved

    def reset_peaks(self) -> None:
        """Start the allocator's peaks anew from what is held now."""

    def allocated(self) -> int | None:
        """Bytes in live tensors by the device's allocator; None where it keeps no count."""
        return None

    def memory_stats(self) -> dict[str, int] | None:
        """Bytes: allocated, peak_allocated, reserved, peak_reserved; and the count alloc_retries.

        None where the allocator keeps no count.
        """
        return None

    def describe(self) -> dict[str, Any]:
        """What a reader of a report must know of the device, as JSON."""
        return {"name": self.name, "kind": platform.machine()}


class _Cuda(Device):
    """A CUDA device, by torch.cuda's documented interface."""

    def reset_peaks(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.torch_device)

    def allocated(self) -> int:
        return torch.cuda.memory_allocated(self.torch_device)

    def memory_stats(self) -> dict[str, int]:
        stats = torch.cuda.memory_stats(self.torch_device)
        return {
            "allocated": stats.get("allocated_bytes.all.current", 0),
            "peak_allocated": stats.get("allocated_bytes.all.peak", 0),
            "reserved": stats.get("reserved_bytes.all.current", 0),
            "peak_reserved": stats.get("reserved_bytes.all.peak", 0),
            "alloc_retries": stats.get("num_alloc_retries", 0),
        }

    def describe(self) -> dict[str, Any]:
        props = torch.cuda.get_device_properties(self.torch_device)
        return {
            "name": self.name,
            "kind": props.name,
            "memory_gib": round(props.total_memory / 2**30, 1),
            "compute_capability": f"{props.major}.{props.minor}",
            "multiprocessors": props.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "allocator": torch.cuda.get_allocator_backend(),
        }


def get_device(name: str) -> Device:
    """The device `name`: ``cpu``, or ``cuda`` for torch's current CUDA device.

    Raises LeanRecError where the name is unknown or no CUDA device can be used.
    """
    if name == "cpu":
        return Device("cpu", torch.device("cpu"))
    if name != "cuda":
        raise LeanRecError(f"Unknown device {name!r}.", "Nothing was run.", "Known: cpu, cuda.")
    if not torch.cuda.is_available():
        cause = (
            f"torch {torch.__version__} is a build without CUDA."
            if torch.version.cuda is None
            else f"torch {torch.__version__} finds no CUDA device that it can use."
        )
        raise LeanRecError(
            cause,
            "Nothing was run on 'cuda'; no number is given for a device that was not there.",
            "Use --device cpu, or install a CUDA build of torch on a machine where "
            "'nvidia-smi' lists a GPU.",
        )
    current = torch.device("cuda", torch.cuda.current_device())
    return _Cuda("cuda", current, lambda: torch.cuda.synchronize(current))
