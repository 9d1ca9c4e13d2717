"""What processes that this one has started take: processor time and memory."""

from __future__ import annotations

from pathlib import Path

import psutil


class Children:
    """The processes that this one has started by now, and those that they have.

    Made once and asked often: finding them takes milliseconds, asking them microseconds each.
    """

    def __init__(self) -> None:
        self._processes = psutil.Process().children(recursive=True)

    def seconds(self) -> float:
        """Processor time that those that still run have used."""
        total = 0.0
        for process in self._processes:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def resident_bytes(self) -> tuple[int, int]:
        """The sum of their peaks, and of what they hold now, beside shared memory.

        That is counted by this process, which shares it. (0, 0) where the system does not tell.
        """
        peak = now = 0
        for process in self._processes:
            try:
                text = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                continue
            kilobytes = {
                name: int(rest.split()[0])
                for name, _, rest in (line.partition(":") for line in text.splitlines())
                if name in ("VmHWM", "VmRSS", "RssShmem")
            }
            shared = kilobytes.get("RssShmem", 0)
            peak += 1024 * max(0, kilobytes.get("VmHWM", 0) - shared)
            now += 1024 * max(0, kilobytes.get("VmRSS", 0) - shared)
        return peak, now
