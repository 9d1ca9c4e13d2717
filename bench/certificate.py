"""The certificate of a host: how often its verdicts are wrong, measured on known truths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from baselines.data.sources import cache_dir
from bench.protocol import Protocol
from bench.records import Row, write_atomically


class Rate(Row):
    """A share with its Clopper–Pearson interval at 95 %."""

    rate: float
    low: float
    high: float
    n: int


class Power(Row):
    """How often an injected slow-down is found: the verdict says slower."""

    injected: float
    found: Rate


class RuleRate(Row):
    """How often a common rule says "different", on the same timings."""

    rule: str
    injected: float
    different: Rate


class Certificate(Row):
    """What was measured of a host.

    noise_floor: metric → the relative size that 95 % of the A/A effects stay within.
    """

    host: str
    device: str
    measured: str  # ISO 8601, UTC
    protocol: Protocol
    budget: str
    seconds: float
    false_alarms: Rate
    coverage: Rate
    noise_floor: dict[str, float]
    power: list[Power]
    rules: list[RuleRate]


def keep(made: Certificate) -> None:
    """Keep a certificate for later runs on its host."""
    write_atomically(_path(made.host, made.device), made.model_dump_json(indent=1) + "\n")


def _path(host: str, device: str) -> Path:
    return cache_dir() / "certificates" / f"{host}-{device}.json"


def latest_certificate(host: str, device: str) -> dict[str, Any] | None:
    """The certificate of this host as the run's environment holds it; None where there is none."""
    try:
        text = _path(host, device).read_text(encoding="utf-8")
        made: dict[str, Any] = json.loads(
            Certificate.model_validate_json(text).model_dump_json(exclude={"protocol"})
        )
    except (OSError, ValidationError):
        return None
    return made


def print_certificate(made: Certificate, console: Console) -> None:
    """The certificate as a table."""
    console.print(f"Host {made.host}, {made.device}, {made.measured}; budget: {made.budget}")
    table = Table("Truth", "What the verdict said", "Share", "95 % interval", "n")
    rows = [
        ("identical code", "faster or slower", made.false_alarms),
        ("identical code", "interval covers 1.00×", made.coverage),
        *((f"+{p.injected:.0%}", "slower", p.found) for p in made.power),
    ]
    rules = [
        (f"+{r.injected:.0%}" if r.injected else "identical code", r.rule, r.different)
        for r in made.rules
    ]
    for truth, said, share in rows + rules:
        table.add_row(
            truth, said, f"{share.rate:.1%}", f"{share.low:.1%} to {share.high:.1%}", str(share.n)
        )
    console.print(table)
    for metric, floor in made.noise_floor.items():
        console.print(f"Noise floor of {metric}: {floor:.2%}")
