"""A profile as tables of text."""

from __future__ import annotations

import pandas as pd

from bench.profiles.difference import changes
from bench.profiles.parts import PARTS
from bench.profiles.record import ArmProfile, Profile
from bench.profiles.roofline import placed
from reports import format as fmt
from reports.profiles.words import PART_NAMES, calls_of, rest_of, signed_percent, time_of

TOP = 15


def parts_table(profile: Profile) -> pd.DataFrame:
    """Where a request's time goes, in both arms; the last line is the whole."""
    control, treatment = profile.control, profile.treatment
    rows = [
        (PART_NAMES[part], control.parts.get(part, 0.0), treatment.parts.get(part, 0.0))
        for part in PARTS
    ]
    rows.append(("Wall time", control.wall_us, treatment.wall_us))
    return pd.DataFrame(
        [
            {
                "Part": name,
                "Control": _with_share(a, control.wall_us),
                "Treatment": _with_share(b, treatment.wall_us),
                "Saved": _signed(a - b),
            }
            for name, a, b in rows
        ]
    )


def difference_table(profile: Profile) -> pd.DataFrame:
    """The largest changes by operator, and all others in one line: they add up to the gap."""
    found = changes(profile)
    shown = [c for c in found[:TOP] if c.saved_us]
    rows = [
        {
            "Operator": c.name,
            "Part": PART_NAMES[c.part],
            "Calls": f"{calls_of(c.calls[0])} → {calls_of(c.calls[1])}" if any(c.calls) else "",
            "Control": time_of(c.self_us[0]),
            "Treatment": time_of(c.self_us[1]),
            "Saved": _signed(c.saved_us),
            "Share of the gap": "" if c.share is None else signed_percent(c.share),
        }
        for c in shown
    ]
    if len(found) > len(shown):
        rest = found[len(shown) :]
        share = None if rest[0].share is None else sum(c.share or 0.0 for c in rest)
        rows.append(
            {
                "Operator": f"{len(rest)} others",
                "Part": "",
                "Calls": "",
                "Control": time_of(sum(c.self_us[0] for c in rest)),
                "Treatment": time_of(sum(c.self_us[1] for c in rest)),
                "Saved": _signed(rest_of(profile, len(shown))),
                "Share of the gap": "" if share is None else signed_percent(share),
            }
        )
    return pd.DataFrame(rows)


def operators_table(arm: ArmProfile) -> pd.DataFrame:
    """An arm's costliest operators, by the time in each without those that it calls."""
    return pd.DataFrame(
        [
            {
                "Operator": o.name,
                "Part": PART_NAMES[o.part],
                "Calls": calls_of(o.calls),
                "Self time": _with_share(o.self_us, arm.seen.wall_us),
                "With what it calls": time_of(o.total_us),
                "FLOPs": "" if o.flops is None else fmt.count(o.flops, "FLOP"),
                "Bytes": "" if not o.bytes else fmt.quantity(o.bytes, "B"),
            }
            for o in arm.seen.operators[:TOP]
        ]
    )


def kernels_table(arm: ArmProfile) -> pd.DataFrame:
    """An arm's costliest kernels on an accelerator; empty on a CPU."""
    return pd.DataFrame(
        [
            {
                "Kernel": k.name,
                "Launches": calls_of(k.calls),
                "Time": _with_share(k.us, arm.seen.wall_us),
            }
            for k in arm.seen.kernels[:TOP]
        ]
    )


def roofline_table(profile: Profile) -> pd.DataFrame:
    """The heaviest operators of both arms under this machine's roofs."""
    return pd.DataFrame(
        [
            {
                "Arm": arm.arm,
                "Operator": p.operator.name,
                "Time": time_of(p.operator.total_us),
                "FLOP per byte": f"{p.intensity:.3g}" if p.intensity else "none counted",
                "Reached": fmt.count(p.rate, "FLOP/s" if p.intensity else "B/s"),
                "Of the roof": f"{p.reached:.0%}",
                "Roof": p.roof,
            }
            for arm in profile.arms
            for p in placed(arm, profile.peaks)
        ]
    )


def _with_share(us: float, of: float) -> str:
    return f"{time_of(us)} ({us / of:.0%})" if us else "0"


def _signed(us: float) -> str:
    return f"{'−' if us < 0 else '+'}{time_of(abs(us))}" if us else "0"
