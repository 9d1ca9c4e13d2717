"""What the host does to the processor, to memory and to the disk."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import psutil

from baselines.data.sources import cache_dir
from bench.doctor.finding import Finding, judge, unseen
from bench.environment import usable_cores
from bench.host import Host

_SAMPLE_SECONDS = 0.5
_GIB = 2**30


def host_findings(host: Host) -> list[Finding]:
    """Every check of the host."""
    return [
        _governor(host),
        _turbo(host),
        _smt(host),
        _heat(host),
        _cores(host),
        *_competition(),
        _memory(host),
        _swap(),
        _huge_pages(host),
        _aslr(host),
        *_disks(),
        _open_files(),
    ]


def _governor(host: Host) -> Finding:
    name, why = (
        "frequency governor",
        "A governor that follows the load changes the clock mid-block.",
    )
    if not host.governors:
        return unseen(name, why)
    fix = "sudo cpupower frequency-set --governor performance"
    return judge(name, ", ".join(host.governors), why, fix, warn=host.governors != ["performance"])


def _turbo(host: Host) -> Finding:
    name, why = "turbo", "The boosted clock depends on heat and on what other cores do."
    if host.turbo is None:
        return unseen(name, why)
    fix = "Switch it off in intel_pstate/no_turbo or cpufreq/boost, if absolute times matter."
    return judge(name, "on" if host.turbo else "off", why, fix, warn=host.turbo)


def _smt(host: Host) -> Finding:
    name, why = "SMT", "Two threads on one core share its units: a neighbour halves your speed."
    if host.smt is None:
        return unseen(name, why)
    fix = "Measure with one thread a core (taskset), or switch SMT off."
    return judge(name, "on" if host.smt else "off", why, fix, warn=host.smt)


def _heat(host: Host) -> Finding:
    name, why = "heat", "A hot processor lowers its clock."
    if host.throttles is None:
        return unseen(name, why)
    fix = "Improve the cooling, or leave longer pauses."
    observed = f"{host.throttles} slow-downs by heat since the host started"
    return judge(name, observed, why, fix, warn=host.throttles > 0)


def _cores(host: Host) -> Finding:
    usable, quota = len(usable_cores()), host.cpu_quota
    limited = quota is not None and quota < usable
    observed = f"{usable} of {psutil.cpu_count()} logical cores usable" + (
        f", quota of {quota:g}" if quota is not None else ""
    )
    return judge(
        "cores",
        observed,
        "With one core the engine and what it measures take turns; a quota stops every thread at "
        "once when it is spent.",
        "Give the process two cores or more, by affinity and not by quota.",
        warn=limited or usable < 2,
        bad=quota is not None and quota < 1,
    )


def _competition() -> list[Finding]:
    """Whoever else runs: seen from inside as load, from outside as stolen time."""
    times = psutil.cpu_times_percent(interval=_SAMPLE_SECONDS)
    busy = 100 - times.idle - getattr(times, "iowait", 0.0)
    load = os.getloadavg()[0]
    cores = psutil.cpu_count() or 1
    findings = [
        judge(
            "load",
            f"{busy:.0f} % busy while idle was expected; load average {load:.2f} on {cores} cores",
            "Other processes take the core, the caches and the memory bandwidth.",
            "Stop them ('top' names them), then wait a minute.",
            warn=busy > 5 or load > 0.3 * cores,
            bad=busy > 50,
        )
    ]
    why = "Stolen time is when the hypervisor ran another guest on your core."
    steal = getattr(times, "steal", None)
    if steal is None:
        return [*findings, unseen("stolen time", why)]
    fix = "Use a host with dedicated cores, or measure at a quieter hour."
    stolen = judge("stolen time", f"{steal:.1f} %", why, fix, warn=steal > 0.5, bad=steal > 5)
    return [*findings, stolen]


def _memory(host: Host) -> Finding:
    memory = psutil.virtual_memory()
    limit = min(host.memory_limit or memory.total, memory.total)
    available = min(memory.available, limit)
    return judge(
        "memory",
        f"{available / _GIB:.1f} GiB available of {limit / _GIB:.1f} GiB",
        "Short of memory, the system drops file caches and swaps, or kills the process.",
        "Close other programs, or measure a smaller baseline.",
        warn=available < 0.25 * limit,
        bad=available < 1 * _GIB,
    )


def _swap() -> Finding:
    used = psutil.swap_memory().used
    return judge(
        "swap",
        f"{used / 2**20:.0f} MiB in use",
        "A page that was swapped out costs milliseconds at its next touch.",
        "Free memory, then 'sudo swapoff -a'.",
        warn=used > 64 * 2**20,
    )


def _huge_pages(host: Host) -> Finding:
    name = "transparent huge pages"
    why = "With 'always' the kernel merges pages behind a running process, at a time of its own."
    if host.huge_pages is None:
        return unseen(name, why)
    fix = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
    return judge(name, host.huge_pages, why, fix, warn=host.huge_pages == "always")


def _aslr(host: Host) -> Finding:
    name = "address layout"
    why = (
        "Layout changes speed. Randomised, fresh processes sample it and the interval covers it; "
        "fixed, one accidental layout passes for the truth."
    )
    if host.aslr is None:
        return unseen(name, why)
    fix = "sudo sysctl kernel.randomize_va_space=2"
    randomised = host.aslr != "0"
    return judge(name, "randomised" if randomised else "fixed", why, fix, warn=not randomised)


def _disks() -> list[Finding]:
    return [_disk("disk of this folder", Path.cwd()), _disk("disk of the cache", cache_dir())]


def _disk(name: str, folder: Path) -> Finding:
    why = "Records, data and trained models are written there."
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    writable = os.access(there, os.W_OK)
    observed = f"{free / _GIB:.1f} GiB free" + ("" if writable else ", not writable")
    fix = "Free space, or choose another folder (--out, LEANREC_CACHE)."
    return judge(name, observed, why, fix, warn=free < 5 * _GIB, bad=free < _GIB or not writable)


def _open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    why = "torch passes tensors between processes through files; a low limit ends a run early."
    observed = "no limit" if unlimited else f"at most {soft}"
    return judge("open files", observed, why, "ulimit -n 4096", warn=not unlimited and soft < 1024)
