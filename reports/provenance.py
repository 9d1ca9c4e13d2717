"""Where the numbers of a run come from: machine, software, certificate, protocol, its own cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.run import Run
from reports import format as fmt

NO_CERTIFICATE = (
    "This host has no certificate: its false-alarm rate and noise floor are unknown. "
    "'leanrec certificate' measures them."
)
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
    """What this host's verdicts are worth; empty where the host has no certificate."""
    certificate = run.environment.get("certificate") or {}
    told = (("Measured", "measured"), ("Budget of a comparison", "budget"))
    rows = [(what, str(certificate[key])) for what, key in told if certificate.get(key)]
    rows += [
        (what, _share(certificate[key]))
        for what, key in (
            ("Identical code: faster or slower was said (false alarms)", "false_alarms"),
            ("Identical code: the interval held “no difference” (coverage)", "coverage"),
        )
        if certificate.get(key)
    ]
    for power in certificate.get("power") or ():
        rows.append((f"{_injected(power)}: slower was said (power)", _share(power.get("found"))))
    for rule in certificate.get("rules") or ():
        said = f"{_injected(rule)}: {rule.get('rule', '')} said different"
        rows.append((said, _share(rule.get("different"))))
    for metric, floor in (certificate.get("noise_floor") or {}).items():
        rows.append((f"Noise floor of {metric}", f"±{fmt.percent(_float(floor))}"))
    return pd.DataFrame(rows, columns=["What", "Value"])


def certificate_in_brief(run: Run) -> str:
    """What this host's verdicts are worth, in a sentence."""
    certificate = run.environment.get("certificate") or {}
    if not certificate:
        return NO_CERTIFICATE
    floors = [
        f"{metric} ±{fmt.percent(_float(floor))}"
        for metric, floor in (certificate.get("noise_floor") or {}).items()
    ]
    told = f"of {certificate.get('measured', 'an unknown date')}"
    if rate := certificate.get("false_alarms"):
        told += f"; identical code was called different in {_share(rate)}"
    return f"{told}; noise floor: {fmt.words(floors)}." if floors else f"{told}."


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


def differences_table(a: Run, b: Run) -> pd.DataFrame:
    """What two runs record differently of where, with what and how they were measured."""
    facts = _facts(a), _facts(b)
    rows = [
        (*key, *(f.get(key, "–") for f in facts))
        for key in dict.fromkeys((*facts[0], *facts[1]))
        if facts[0].get(key) != facts[1].get(key)
    ]
    return pd.DataFrame(rows, columns=["Part", "Name", "A", "B"])


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


def _facts(run: Run) -> dict[tuple[str, str], str]:
    """(part, name) → what a run records of it."""
    plan = run.plan
    groups = {
        "host": {"fingerprint": run.environment.get("host")},
        **{group: run.environment.get(group) for group in _GROUPS},
        "protocol": plan.protocol.model_dump(),
        "plan": {
            "suite": plan.suite,
            "baseline": plan.baselines,
            "stack": plan.stacks,
            "scenario": plan.scenarios,
        },
    }
    return {(group, name): text for group, value in groups.items() for name, text in _flat(value)}


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
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _injected(found: Mapping[str, Any]) -> str:
    slowdown = found.get("injected")
    return f"Slow-down of {fmt.percent(_float(slowdown))}" if slowdown else "Identical code"


def _share(rate: Any) -> str:
    """A share with its interval, as the certificate holds it."""
    if not isinstance(rate, Mapping):
        return fmt.NOT_AVAILABLE
    share, low, high = (fmt.percent(_float(rate.get(key))) for key in ("rate", "low", "high"))
    return f"{share} [{low}, {high}] of {rate.get('n', '?')}"


def _float(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
