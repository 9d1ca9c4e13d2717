"""The doctor: what on this host would disturb a measurement. Looks, reports, changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.device import Device
from bench.doctor.finding import Finding
from bench.doctor.gpu import gpu_findings
from bench.doctor.host import host_findings
from bench.doctor.timing import timing_findings
from bench.host import Host

__all__ = ["Finding", "diagnose", "print_findings"]

_COLOURS = {"ok": "green", "warn": "yellow", "bad": "red"}


def diagnose(device: Device, host: Host | None = None) -> list[Finding]:
    """Every finding on `host` (this one) and `device`; takes about a second and changes nothing."""
    host = host or Host()
    return [*host_findings(host), *timing_findings(device, host), *gpu_findings(device)]


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Findings as a table; below it, for each that is not ok, why it matters and what to do."""
    table = Table("", "look at", "observed", title="leanrec doctor", title_justify="left")
    for finding in findings:
        colour = _COLOURS[finding.status]
        table.add_row(
            f"[{colour}]{finding.status}[/]", escape(finding.name), escape(finding.observed)
        )
    console.print(table)
    for finding in findings:
        if finding.status != "ok":
            colour = _COLOURS[finding.status]
            console.print(f"[{colour}]{finding.status}[/] [bold]{escape(finding.name)}[/]")
            console.print(f"     {escape(finding.why)}\n     → {escape(finding.fix)}")
    counts = {status: sum(f.status == status for f in findings) for status in _COLOURS}
    console.print(", ".join(f"{n} {status}" for status, n in counts.items()) + ".")
