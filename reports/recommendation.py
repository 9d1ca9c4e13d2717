"""Recommendations in words: what to use, on what evidence, and what spoke against the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from bench.limits import Finding
from bench.recommend import Candidate, Recommendation
from bench.records import CONTROL
from reports import format as fmt
from reports.gate import sentence

_BETTER = {
    "throughput": "the throughput of the control",
    "latency": "as fast as the control",
    "training": "the training throughput of the control",
    "memory": "less peak memory than the control",
    "size": "smaller than the control",
}


def lines(found: Recommendation) -> list[tuple[str, str]]:
    """(what, text): the choice first, then its evidence, then every other stack with its reason."""
    told = [("use", _choice(found))]
    if found.chosen is not None:
        told += [("evidence", sentence(f)) for f in found.chosen.findings]
    for what, group in (("tied with it", found.tied), ("undecided", found.open)):
        told += [(what, f"{c.stack}: {_gain(c)}{_why(c)}") for c in group]
    for place, c in enumerate(found.beaten):
        told.append(("worse" if place else "runner-up", f"{c.stack}: {_gain(c)}"))
    for c in found.dropped:
        after = "1 process" if c.processes == 1 else f"{c.processes} processes"
        told.append((f"dropped after {after}", f"{c.stack}: {_gain(c)}{_why(c)}"))
    told += [("out", f"{c.stack}: {_gain(c)}{_why(c)}") for c in found.out]
    return told


def show(recommendations: Sequence[Recommendation], console: Console) -> None:
    """Print each recommendation."""
    for found in recommendations:
        title = f"{found.baseline} on {found.device}, for {found.objective}"
        console.print(Text(title, style="bold"))
        for what, text in lines(found):
            console.print(Text(f"  {what}: {text}"))


def _choice(found: Recommendation) -> str:
    chosen = found.chosen
    if chosen is None:
        return "nothing: no stack is known to keep every limit"
    best = "the control: no stack that keeps the limits is known to be better"
    if chosen.stack != CONTROL:
        best = f"{chosen.stack}: {_gain(chosen)} {_BETTER[found.objective]}"
    if rivals := [c.stack for c in (*found.tied, *found.open)]:
        best += f"; the evidence does not tell it from {fmt.words(rivals)}"
    if chosen.inconclusive:
        best += f"; inconclusive by itself at {fmt.words(list(chosen.inconclusive))}"
    return best


def _gain(c: Candidate) -> str:
    if math.isnan(c.gain):
        return "not measured"
    bounded = math.isfinite(c.high) and c.low > 0
    text = f"{fmt.ratio(c.gain)}×"
    return text + (f" [{fmt.ratio(c.low, c.gain)}, {fmt.ratio(c.high, c.gain)}]" if bounded else "")


def _why(c: Candidate) -> str:
    open_ = [f for f in c.findings if f.state != "met"]
    return "".join(f"; {_short(f)}" for f in sorted(open_, key=lambda f: -f.distance))


def _short(f: Finding) -> str:
    """The finding without its baseline and stack, and how far it is from the limit."""
    text = sentence(f).partition(", ")[2]
    return text + (f", {fmt.percent(f.distance)} beyond it" if math.isfinite(f.distance) else "")
