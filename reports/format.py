"""How a number is written. Every table, figure and page takes its text from here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

from bench.effects import Effect

NOT_AVAILABLE = "n/a"
_TIME = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_CHANGES = ("faster", "slower", "smaller", "larger")
_TONES = {
    "good": ("faster", "smaller", "better", "reinforces"),
    "bad": ("slower", "larger", "inferior", "worse", "cancels", "failed"),
    "open": ("inconclusive", "in progress", "skipped", "not measured"),
    "even": ("non-inferior",),  # named, because it holds the word inferior
}
_MARKS = {"▲": "good", "▼": "bad", "✕": "bad", "=": "even", **dict.fromkeys("?…–", "open")}
_TONE = {word: tone for tone, found in _TONES.items() for word in found}
_WORD = re.compile("|".join(sorted(map(re.escape, _TONE), key=len, reverse=True)))


def kind(unit: str) -> str:
    """What `unit` counts: ``time``, ``bytes``, ``rate`` or ``other``."""
    if unit == "s":
        return "time"
    if unit in ("bytes", "B"):
        return "bytes"
    return "rate" if unit.endswith("/s") else "other"


def quantity(value: float, unit: str) -> str:
    """A value with its unit: seconds as s, ms, µs or ns; bytes as KiB, MiB or GiB (powers of 2)."""
    if not math.isfinite(value):
        return NOT_AVAILABLE
    match kind(unit):
        case "time":
            scale, name = next((u for u in _TIME if abs(value) >= u[0]), _TIME[-1])
            return f"{_digits(value / scale)} {name}" if value else "0 s"
        case "bytes":
            for scale, name in _BYTES:
                if abs(value) >= scale:
                    return f"{value / scale:,.2f} {name}"
            return f"{value:,.0f} B"
        case "rate":
            return f"{_digits(value)} {unit}"
    return f"{number(value)} {unit}".strip()


def count(value: float, unit: str) -> str:
    """A large count or rate with a decimal prefix: ``103 GFLOP/s``, ``1.25 MB/s``."""
    scale, prefix = next((p for p in _PREFIXES if abs(value) >= p[0]), (1.0, ""))
    return f"{value / scale:.3g} {prefix}{unit}"


def number(value: float) -> str:
    """A plain number: four decimals below 10, so that two qualities can be told apart."""
    if not math.isfinite(value):
        return NOT_AVAILABLE
    return _minus(f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}")


def ratio(value: float, like: float | None = None) -> str:
    """A ratio without its sign ×: three significant digits, four next to 1, a power if far off.

    like: the ratio whose decimal places to take, so that the bounds of an interval look alike.
    """
    if not math.isfinite(value):
        return NOT_AVAILABLE
    if not 0.001 <= value < 10_000:
        return f"{value:.1e}" if value else "0"
    size = value if like is None else like
    places = (
        3 if 0.95 <= size < 1.05 or size < 0.1 else 0 if size >= 100 else 1 if size >= 10 else 2
    )
    return f"{value:.{places}f}"


def difference(value: float) -> str:
    """A difference with its sign, four decimals."""
    text = f"{value:+.4f}"
    return NOT_AVAILABLE if not math.isfinite(value) else _minus(_unsigned_zero(text))


def effect(e: Effect) -> str:
    """The effect with its interval: ``3.10× [3.02, 3.18]`` or ``−0.0012 [−0.0020, −0.0004]``.

    A difference of times or bytes carries its unit: ``+1.2 s``.
    """
    if not math.isfinite(e.effect):
        return NOT_AVAILABLE
    text = _writer(e)
    bounds = f" [{text(e.low)}, {text(e.high)}]" if math.isfinite(e.high - e.low) else ""
    return f"{text(e.effect)}{'×' if e.scale == 'ratio' else ''}{bounds}"


def claim(e: Effect) -> str:
    """The verdict with its size, in the direction the word says: ``3.10× faster``."""
    if not math.isfinite(e.effect) or e.verdict == "failed":
        return e.verdict
    if not e.margin and e.scale == "difference":
        return "not judged"  # no margin is defined for the metric
    if e.scale == "difference":
        return f"{e.verdict} {effect(e).split(' [')[0]}"
    if e.verdict in _CHANGES:
        return f"{ratio(max(e.effect, 1 / e.effect))}× {e.verdict}"
    return f"{e.verdict} {effect(e)}" if e.verdict == "inconclusive" else e.verdict


def margin(e: Effect) -> str:
    """The margin within which the arms count as equal; ``none`` where none is defined."""
    if not e.margin:
        return "none"
    return f"±{e.margin:.1%}" if e.scale == "ratio" else f"±{number(e.margin)}"


def duration(seconds: float) -> str:
    """A long time for people: ``4 min 12 s``."""
    if not math.isfinite(seconds):
        return NOT_AVAILABLE
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{value:.1%}" if math.isfinite(value) else NOT_AVAILABLE


def words(parts: list[str]) -> str:
    """A list in prose: ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def tone(line: str) -> str:
    """How the verdict in a line reads, by its mark if it begins with one, or by its word: ``good``,
    ``bad``, ``open``, ``even``; "" without one."""
    if line[1:2] == " " and line[0] in _MARKS:
        return _MARKS[line[0]]
    word = _WORD.search(line)
    return _TONE[word[0]] if word else ""


def _writer(e: Effect) -> Callable[[float], str]:
    if e.scale == "ratio":
        return partial(ratio, like=e.effect)
    return difference if kind(e.unit) == "other" else partial(_signed, unit=e.unit)


def _signed(value: float, unit: str) -> str:
    return f"{'−' if value < 0 else '+'}{quantity(abs(value), unit)}"


def _digits(value: float) -> str:
    """Four significant digits, zeros kept."""
    return f"{value:,.0f}" if abs(value) >= 999.95 else f"{value:#.4g}"


def _unsigned_zero(text: str) -> str:
    return text[1:] if not text.strip("+-0.") else text


def _minus(text: str) -> str:
    return text.replace("-", "−")
