"""One thing that the doctor looked at."""

from __future__ import annotations

from typing import Literal

from bench.records import Row


class Finding(Row):
    """What was seen, whether it disturbs a measurement, why, and what to do; fix is "" where ok."""

    name: str
    status: Literal["ok", "warn", "bad"]
    observed: str
    why: str
    fix: str = ""


def judge(
    name: str, observed: str, why: str, fix: str, *, warn: bool = False, bad: bool = False
) -> Finding:
    """A finding that is bad, a warning, or else ok."""
    status: Literal["ok", "warn", "bad"] = "bad" if bad else "warn" if warn else "ok"
    return Finding(
        name=name, status=status, observed=observed, why=why, fix="" if status == "ok" else fix
    )


def unseen(name: str, why: str, reason: str = "the system does not tell") -> Finding:
    """A warning that something could not be looked at: unknown is not ok."""
    fix = "Ask who runs the host, and let 'leanrec certificate' measure what it does to you."
    return Finding(name=name, status="warn", observed=f"not visible: {reason}", why=why, fix=fix)
