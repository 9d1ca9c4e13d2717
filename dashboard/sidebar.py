"""What the reader chooses in the sidebar. Every choice is kept in the address of the page."""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterable, Mapping

import streamlit as st

from bench.limits import Limit, Limits
from bench.protocol import QualityMargin
from bench.run import Run
from reports.markdown_page import plain
from reports.select import Selection, techniques_of

_ANY = "any"
_FIGURES: tuple[tuple[str, str, Limit, float], ...] = (  # label, name in the address, unit
    ("Speed-up at least (times)", "speedup", "min_speedup", 1.0),
    ("Latency of the tail at most (ms)", "latency", "max_latency", 1e-3),
    ("Peak memory at most (MiB)", "memory", "max_memory", 2.0**20),
    ("Preparation at most (s)", "preparation", "max_preparation", 1.0),
)
_STRICTEST_FIRST: tuple[QualityMargin, ...] = ("mlperf-99.9", "auc-0.001", "mlperf-99")
_DIGITS = (
    1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.2, 2.5, 2.8, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9,
)  # fmt: skip
_LEAST = 1e-6
_POSITIVE = re.compile(r"\d{1,12}(\.\d{1,6})?|\.\d{1,6}")


def selection(run: Run) -> Selection:
    """The part of the run to show."""
    cells = [p.cell for p in run.plan.cells]
    techniques = (name for cell in cells for name in techniques_of(cell.stack))
    return Selection(
        baselines=_choices("Baseline", "baseline", (cell.baseline for cell in cells)),
        techniques=_choices("Technique", "technique", techniques),
        scenarios=_choices("Scenario", "scenario", (cell.scenario for cell in cells)),
        metrics=_choices("Metric", "metric", (e.metric for e in run.effects)),
    )


def limits(ends: Mapping[Limit, tuple[float, float]]) -> Limits:
    """The limits to hold stacks to. ends: the least and the largest that was measured of each."""
    quality = _slider("Quality loss at most", "quality", [*_STRICTEST_FIRST, _ANY])
    figures = [
        _figure(label, key, limit, ends.get(limit), unit) for label, key, limit, unit in _FIGURES
    ]
    return Limits.of(quality, *figures)


def choice(label: str, key: str, options: list[str], folded: bool = False) -> str:
    """One of `options`; folded: only the one is seen."""
    wanted = st.session_state.get(key, st.query_params.get(key))
    st.session_state[key] = wanted if wanted in options else options[0]
    if folded:
        chosen = st.sidebar.selectbox(label, options, key=key)
    else:
        chosen = st.sidebar.radio(label, options, key=key, format_func=plain)
    st.query_params[key] = chosen
    return chosen


def _choices(label: str, key: str, options: Iterable[str]) -> list[str]:
    """Some of `options`, none means all."""
    known = list(dict.fromkeys(options))
    wanted = st.session_state.get(key, st.query_params.get_all(key))
    st.session_state[key] = [name for name in wanted if name in known]
    chosen = st.sidebar.multiselect(label, known, key=key, placeholder="All")
    st.query_params[key] = chosen
    return chosen


def _figure(
    label: str, key: str, limit: Limit, ends: tuple[float, float] | None, unit: float
) -> float | None:
    """A round number about what was measured, or the one in the address; None for any."""
    known = set(_steps(ends[0] / unit, ends[1] / unit)) if ends else set()
    if _POSITIVE.fullmatch(text := st.query_params.get(key, "")):
        known.add(float(text))
    options = [_decimal(value) for value in sorted(known) if value >= _LEAST]
    if not options:
        return None
    chosen = _slider(label, key, [_ANY, *options] if limit == "min_speedup" else [*options, _ANY])
    return float(chosen) if chosen else None


def _slider(label: str, key: str, options: list[str]) -> str | None:
    """One of `options`; None for any."""
    wanted = st.session_state.get(key, st.query_params.get(key))
    st.session_state[key] = wanted if wanted in options else _ANY
    chosen: str = st.sidebar.select_slider(label, options, key=key)
    if chosen == _ANY:
        st.query_params.pop(key, None)
        return None
    st.query_params[key] = chosen
    return chosen


def _steps(low: float, high: float) -> list[float]:
    """Round numbers from below `low` to above `high`, about twenty for each power of ten."""
    if not 0 < low <= high < math.inf:
        return []
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    grid = [round(digits * 10.0**power, 7) for power in powers for digits in _DIGITS]
    first = bisect.bisect_left(grid, low) - 1
    return grid[first : bisect.bisect_right(grid, high) + 1]


def _decimal(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
