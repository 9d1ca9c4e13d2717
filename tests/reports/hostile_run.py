"""A run all of whose names, warnings and remarks are hostile to the pages that show them."""

from __future__ import annotations

from pathlib import Path

from made_profile import made_profile
from synthetic_run import Truth, write_run

from bench.profiles.record import folder_in, write_profile
from bench.records import Cell, EventRow

SCRIPT = "<script>alert(1)</script>"
BASELINE = SCRIPT + "|"
HOSTILE = [
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "a|b`c`*d*_e_[f](g)",
    "$\\frac{1$ ${x}",
    "=HYPERLINK(1)",
    "naïve 推薦 \u202e x",
    'it\'s "quoted" & more',
]


def write_hostile_run(folder: Path, host: str = SCRIPT) -> Path:
    """A finished run with a profile of a cell."""
    event = EventRow(scenario="", name=SCRIPT, severity="warning", detail="| `x` " + SCRIPT)
    truths = {name: Truth({4096: 2.0}, events=(event,)) for name in HOSTILE}
    environment = {"host": host, "machine": {SCRIPT: "|`" + SCRIPT}, "notes": [SCRIPT]}
    write_run(folder, truths, [BASELINE], processes=3, environment=environment)
    cell = Cell(baseline=BASELINE, stack=SCRIPT, scenario="offline", device="cpu")
    times = dict.fromkeys(HOSTILE, 100.0)
    profile = made_profile(times, cell=cell, names=("control", HOSTILE[1]))
    write_profile(folder_in(folder, cell), profile)
    return folder
