"""Reads what a host says of itself, and changes nothing. None where the system does not tell.

Paths are below `root`, so that another machine's /proc and /sys can be read as well as this one's.
Sources: the kernel's documentation of proc(5), cpufreq, cgroup v1 and v2, and of the files named.
"""

from __future__ import annotations

import hashlib
import hmac
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

FLAGS_OF_NOTE = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_int8", "amx_bf16", "avx_vnni", "asimd", "asimddp", "sve", "i8mm", "bf16",
)  # fmt: skip
_CPU = "sys/devices/system/cpu"
_CONTAINERS = re.compile(r"docker|kubepods|containerd|lxc|libpod")


@dataclass(frozen=True)
class Host:
    """The machine below `root`."""

    root: Path = Path("/")

    def _read(self, path: str) -> str | None:
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def _chosen(self, path: str) -> str | None:
        """The option in brackets, as in ``always [madvise] never``."""
        match = re.search(r"\[(\w+)\]", self._read(path) or "")
        return match[1] if match else None

    def _cpuinfo(self, *keys: str) -> str | None:
        for key in keys:
            match = re.search(rf"^{key}\s*:\s*(.+)$", self._read("proc/cpuinfo") or "", re.M)
            if match:
                return match[1].strip()
        return None

    @property
    def cpu_model(self) -> str:
        """The processor's name, else its architecture."""
        return (
            self._cpuinfo("model name", "Processor") or platform.processor() or (platform.machine())
        )

    @property
    def cpu_flags(self) -> list[str]:
        """Those of FLAGS_OF_NOTE that the processor has."""
        flags = set((self._cpuinfo("flags", "Features") or "").split())
        return [flag for flag in FLAGS_OF_NOTE if flag in flags]

    @property
    def governors(self) -> list[str]:
        """The frequency governors in use, each once; empty where they are not visible."""
        found = self.root.glob(f"{_CPU}/cpu[0-9]*/cpufreq/scaling_governor")
        return sorted({path.read_text().strip() for path in found})

    @property
    def turbo(self) -> bool | None:
        """Whether the clock may rise above its base frequency."""
        no_turbo = self._read(f"{_CPU}/intel_pstate/no_turbo")
        if no_turbo is not None:
            return no_turbo == "0"
        boost = self._read(f"{_CPU}/cpufreq/boost")
        return None if boost is None else boost == "1"

    @property
    def smt(self) -> bool | None:
        """Whether several hardware threads share a core."""
        active = self._read(f"{_CPU}/smt/active")
        return None if active is None else active == "1"

    @property
    def throttles(self) -> int | None:
        """How often a core was slowed by heat since the host started."""
        found = list(self.root.glob(f"{_CPU}/cpu[0-9]*/thermal_throttle/core_throttle_count"))
        return sum(int(path.read_text()) for path in found) if found else None

    @property
    def huge_pages(self) -> str | None:
        """Transparent huge pages: always, madvise or never."""
        return self._chosen("sys/kernel/mm/transparent_hugepage/enabled")

    @property
    def aslr(self) -> str | None:
        """Randomised address layout: 0 off, 1 without the heap, 2 full."""
        return self._read("proc/sys/kernel/randomize_va_space")

    @property
    def clock_source(self) -> str | None:
        """What the kernel tells the time by."""
        return self._read("sys/devices/system/clocksource/clocksource0/current_clocksource")

    @property
    def cpu_quota(self) -> float | None:
        """Processors that the control group may use; None without a limit."""
        limit = (self._read("sys/fs/cgroup/cpu.max") or "").split()
        if len(limit) != 2:
            limit = [
                self._read(f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us") or "-1"
                for name in ("quota", "period")
            ]
        quota, period = limit
        return None if quota in ("max", "-1") else int(quota) / int(period)

    @property
    def memory_limit(self) -> int | None:
        """Bytes that the control group may use; None without a limit."""
        limit = self._read("sys/fs/cgroup/memory.max") or self._read(
            "sys/fs/cgroup/memory/memory.limit_in_bytes"
        )
        # Version 1 writes "no limit" as the largest multiple of a page below 2^63.
        return int(limit) if limit and limit != "max" and int(limit) < 1 << 60 else None

    @property
    def virtualisation(self) -> str:
        """``none``, ``virtual machine``, ``container`` or both, as far as is visible."""
        flags = (self._cpuinfo("flags") or "").split()
        hypervisor = self._read("sys/hypervisor/type") or "hypervisor" in flags
        marked = any((self.root / mark).exists() for mark in (".dockerenv", "run/.containerenv"))
        container = marked or _CONTAINERS.search(self._read("proc/1/cgroup") or "")
        kinds = ["virtual machine"] * bool(hypervisor) + ["container"] * bool(container)
        return " + ".join(kinds) or "none"

    @property
    def vendor(self) -> str | None:
        """Who made the machine, or emulates it."""
        return self._read("sys/class/dmi/id/sys_vendor")

    def fingerprint(self, accelerator: str) -> str:
        """Twelve hexadecimal digits that stay the same for one machine, and name nobody.

        machine-id(5) asks that the id be shown only through a keyed hash.
        """
        facts = [
            self.cpu_model,
            *self.cpu_flags,
            str(psutil.cpu_count()),
            str(round(psutil.virtual_memory().total / 2**30)),
            accelerator,
        ]
        key = (self._read("etc/machine-id") or "").encode()
        return hmac.new(key, "\n".join(facts).encode(), hashlib.sha256).hexdigest()[:12]
