"""Memory: bytes in live tensors, in the process, on the GPU; and whether they keep growing."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import psutil
import pynvml
import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from bench.device import Device
from bench.meters.nvml import NotMeasured, open_gpu

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def live_tensor_bytes() -> int:
    """Bytes of every tensor that Python can reach, each storage counted once.

    Parameters, buffers, gradients and optimiser state are tensors like any other; a view adds
    nothing; garbage is collected first. Memory that C++ alone holds (packed int8 weights, what
    autograd saved) is not seen.
    """
    gc.collect()
    storages: dict[tuple[torch.device, int], int] = {}
    for tensor in [o for o in gc.get_objects() if issubclass(type(o), Tensor)]:
        for part in _dense_parts(tensor):
            storage = part.untyped_storage()
            if storage.device.type != "meta":
                storages[storage.device, storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _dense_parts(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that hold the bytes of `tensor` and that the collector would not list itself."""
    if is_traceable_wrapper_subclass(tensor):
        return  # the tensors it wraps are listed on their own
    if tensor.layout is torch.strided:
        yield tensor
    elif tensor.layout is torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
    if tensor.is_leaf and tensor.grad is not None:
        yield from _dense_parts(tensor.grad)


def rss_bytes() -> int:
    """Resident bytes of this process."""
    return psutil.Process().memory_info().rss


def reset_peak_rss() -> bool:
    """Start the peak of resident bytes anew; False where the system does not allow it.

    Source: proc(5): writing 5 to /proc/self/clear_refs resets VmHWM.
    """
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def peak_rss_bytes() -> int | None:
    """Peak resident bytes since the last reset, else since the process began; None if unknown."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


class DeviceMemory:
    """Device memory in use beyond what was in use when the meter was made.

    Make it after the context exists and before the model is loaded, so that the context is left
    out. NVML counts the whole GPU: other processes on it are counted too. Unlike the allocator's
    own figures it sees what libraries take behind torch's back.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._before, self.reason = self._in_use()

    def added_bytes(self) -> int | None:
        """Bytes added since; None where not measured, for `reason`."""
        now, self.reason = self._in_use() if self._before is not None else (None, self.reason)
        return None if now is None or self._before is None else now - self._before

    def _in_use(self) -> tuple[int | None, str]:
        try:
            with open_gpu(self._device) as gpu:
                return int(pynvml.nvmlDeviceGetMemoryInfo(gpu).used), ""
        except NotMeasured as error:
            return None, str(error)


def grows(samples: Sequence[int], tolerance: int = 0) -> bool:
    """Whether bytes sampled after equal pieces of work keep growing: a leak.

    The first sample may precede a cache that fills once, so it is left out; of the steps between
    the others, more than half must rise by more than `tolerance` bytes, and none may fall by more.
    Fewer than four samples cannot tell, and never accuse.
    """
    steps = [after - before for before, after in pairwise(samples[1:])]
    if len(steps) < 2 or min(steps) < -tolerance:
        return False
    return statistics.median_low(steps) > tolerance
