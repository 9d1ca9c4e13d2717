"""A profile on the terminal."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.profiles.record import FILE, Profile
from reports import format as fmt
from reports.profiles import tables, words


def show_profile(profile: Profile, folder: Path, diff: bool, console: Console) -> None:
    """Print what the profile says; with `diff` the difference by operator instead of the operators
    of each arm."""
    say = partial(console.print, markup=False, highlight=False)
    say(words.about(profile))
    say(words.by_the_clock(profile))
    say(words.trust(profile))
    if disturbed := words.interruptions(profile):
        say(disturbed)
    say(words.explanation(profile))
    for name, change in words.named_changes(profile):
        say(f"  {name}: {change}")
    console.print(_table(tables.parts_table(profile), "Where a request's time goes"))
    console.print(words.PARTS_NOTE, style="dim", markup=False, highlight=False)
    if diff:
        console.print(_table(tables.difference_table(profile), "Control − treatment, by operator"))
    else:
        for arm in profile.arms:
            console.print(_table(tables.operators_table(arm), f"{arm.name}, by operator"))
    peaks = profile.peaks
    roofs = f"{fmt.count(peaks.flops, 'FLOP/s')}, {fmt.count(peaks.bandwidth, 'B/s')}"
    console.print(_table(tables.roofline_table(profile), f"Under this machine's roofs: {roofs}"))
    console.print(words.ROOF_NOTE, style="dim", markup=False, highlight=False)
    say(f"Record: {folder / FILE}")
    for name, how in words.opening(folder):
        say(f"{name}: {how}")


def _table(frame: pd.DataFrame, title: str) -> Table:
    table = Table(*map(escape, frame.columns), title=escape(title))
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*(escape(str(value)) for value in row))
    return table
