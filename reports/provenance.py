"""Where the numbers of a run come from: machine, software, certificate, protocol, its own cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.run import Run
from reports import format as fmt

_GROUPS = ("machine", "software", "settings", "device")


def environment_table(run: Run) -> pd.DataFrame:
    """What the run was measured on, and the doctor's remarks about it."""
    environment = run.environment
    rows = [("host", "fingerprint", str(environment["host"]))] if environment.get("host") else []
    for group in _GROUPS:
        rows += [(group, key, text) for key, text in _flat(environment.get(group))]
    rows += [("doctor", "remark", str(note)) for note in environment.get("notes") or ()]
    return pd.DataFrame(rows, columns=["Part", "Name", "Value"])


def certificate_table(run: Run) -> pd.DataFrame:
    """What this host's measurements are worth; empty where the host has no certificate."""
    certificate = run.environment.get("certificate") or {}
    rows: list[tuple[str, str]] = []
    if certificate.get("measured"):
        rows.append(("Measured", str(certificate["measured"])))
    if certificate.get("budget"):
        rows.append(("Budget of a comparison", str(certificate["budget"])))
    if alarms := certificate.get("false_alarms"):
        rows.append(("Identical code called different (false alarms)", _share(alarms, "rate")))
    coverage = certificate.get("coverage")
    if isinstance(coverage, Mapping):
        name = "rate" if "rate" in coverage else "covered"
        rows.append(("Intervals that hold “no difference” (coverage)", _share(coverage, name)))
    elif isinstance(coverage, (int, float)):
        rows.append(("Intervals that hold “no difference” (coverage)", fmt.percent(coverage)))
    for found in certificate.get("power") or ():
        injected = fmt.percent(_number(found, "injected"))
        rows.append((f"Injected slow-down of {injected} found", _share(found, "found")))
    for metric, floor in (certificate.get("noise_floor") or {}).items():
        rows.append((f"Noise floor of {metric}", f"±{fmt.percent(_float(floor))}"))
    for rule in certificate.get("rules") or ():
        alarm = fmt.percent(_number(rule, "false_alarms"))
        rows.append((f"False alarms of “{rule.get('rule', '?')}” on the same data", alarm))
    return pd.DataFrame(rows, columns=["What", "Value"])


def protocol_table(run: Run) -> pd.DataFrame:
    """The measuring protocol in brief."""
    p = run.plan.protocol
    looks = fmt.words([str(n) for n in p.looks])
    if len(p.looks) > 1:
        looks = f"looked at after {looks}; ended as soon as the interval is narrow enough"
    rows = [
        ("Unit of replication", "a process; iterations are never counted as repetitions"),
        ("Processes a comparison", looks),
        ("Blocks", f"{p.pairs} counterbalanced pairs in each process"),
        ("Interval", f"{fmt.percent(1 - p.alpha)} over all looks together"),
        ("Margin of speed and size", f"±{fmt.percent(p.margin)}, or the host's noise floor"),
        ("Margin of quality", p.quality_margin),
        ("Families", "Holm for the primary cells, Benjamini–Hochberg for the rest"),
        ("Primary cells", ", ".join(run.plan.primary) or "none declared"),
    ]
    rows += [
        ("Quality protocol", text)
        for text in dict.fromkeys(e.protocol for e in run.effects)
        if text
    ]
    return pd.DataFrame(rows, columns=["What", "Value"])


def accounting(run: Run) -> pd.DataFrame:
    """Wall time against the work that the trials had to do; empty while the run is going on."""
    if run.summary is None:
        return pd.DataFrame(columns=["What", "Value"])
    wall, work = run.summary.wall, run.summary.work
    cost = f"{fmt.ratio(wall / work)}×" if work > 0 else fmt.NOT_AVAILABLE
    rows = [
        ("Wall time", fmt.duration(wall)),
        ("Work of the trials", fmt.duration(work)),
        ("Wall time ÷ work (the engine's own cost)", cost),
    ]
    phases: dict[str, float] = {}
    for trial in run.trials:
        for name, seconds in trial.end.phases.items():
            phases[name] = phases.get(name, 0.0) + seconds
    rows += [
        (f"… {name.replace('_', ' ')}", fmt.duration(seconds))
        for name, seconds in sorted(phases.items(), key=lambda item: -item[1])
    ]
    return pd.DataFrame(rows, columns=["What", "Value"])


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if not isinstance(value, Mapping):
        return [] if value in (None, "", []) else [(prefix, _text(value))]
    return [
        row
        for key, v in value.items()
        for row in _flat(v, f"{prefix}.{key}" if prefix else str(key))
    ]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _share(found: Mapping[str, Any], name: str) -> str:
    text = fmt.percent(_number(found, name))
    if "low" in found and "high" in found:
        text += f" [{fmt.percent(_number(found, 'low'))}, {fmt.percent(_number(found, 'high'))}]"
    return text + (f" of {found['n']}" if "n" in found else "")


def _number(found: Mapping[str, Any], name: str) -> float:
    return _float(found.get(name))


def _float(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
