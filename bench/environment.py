"""What a run's numbers depend on, as JSON. No host name, user name or path: reports get shared."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from bench.device import Device
from bench.host import Host

_VARIABLES = ("OMP_", "MKL_", "KMP_", "GOMP_", "ONEDNN_", "DNNL_", "ATEN_", "MALLOC_", "TORCH",
              "PYTORCH_", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "LD_PRELOAD",
              "PYTHONMALLOC", "PYTHONHASHSEED", "PYTHONOPTIMIZE")  # fmt: skip
_PATH = re.compile(r"[^\s:;,=]*/[^\s:;,]*")


def environment(device: Device, threads: int, host: Host | None = None) -> dict[str, Any]:
    """Machine, software, settings and device of a run that measures with `threads` CPU threads.

    ``host`` is a fingerprint: absolute times are compared only where it is the same.
    """
    host = host or Host()
    described = device.describe()
    return {
        "host": host.fingerprint(described["kind"]),
        "machine": _machine(host),
        "software": _software(),
        "settings": {"threads": threads, "variables": variables()},
        "device": described,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _machine(host: Host) -> dict[str, Any]:
    limit = host.memory_limit
    return {
        "cpu": host.cpu_model,
        "cpu_flags": host.cpu_flags,
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "cpu_quota": host.cpu_quota,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "memory_limit_gib": None if limit is None else round(limit / 2**30, 1),
        "swap_used_mib": round(psutil.swap_memory().used / 2**20),
        "system": platform.system(),
        "kernel": platform.release(),
        "virtualisation": host.virtualisation,
        "vendor": host.vendor,
        "governors": host.governors,
        "turbo": host.turbo,
        "smt": host.smt,
        "huge_pages": host.huge_pages,
        "aslr": host.aslr,
        "clock_source": host.clock_source,
    }


def _software() -> dict[str, Any]:
    return {
        "leanrec": version("leanrec"),
        "git": _git(Path(__file__).resolve().parents[1]),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch_mkl": torch.backends.mkl.is_available(),
        "torch_mkldnn": torch.backends.mkldnn.is_available(),
        "torch_openmp": torch.backends.openmp.is_available(),
        "torch_interop_threads": torch.get_num_interop_threads(),
        "numpy": np.__version__,
    }


def usable_cores() -> list[int]:
    """The logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def variables() -> dict[str, str]:
    """The environment variables that change speed; of paths, only the names of libraries."""
    return {
        key: _PATH.sub(_library, value)
        for key, value in sorted(os.environ.items())
        if key.startswith(_VARIABLES)
    }


def _library(path: re.Match[str]) -> str:
    name = Path(path[0]).name
    return name if ".so" in name else "(a path)"


def _git(checkout: Path) -> dict[str, Any] | None:
    """Commit of the checkout that runs, and whether it was changed since; None if installed."""
    if not (checkout / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(checkout), *arguments],
                capture_output=True, text=True, check=True, timeout=10,
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changes)}
