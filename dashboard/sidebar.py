"""What the reader chooses in the sidebar. Every choice is kept in the address of the page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import get_args

import streamlit as st

from bench.limits import Limits
from bench.protocol import QualityMargin
from bench.run import Run
from reports.markdown_page import plain
from reports.select import Selection, techniques_of

_ANY = "any"
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


def limits() -> Limits:
    """The limits to hold stacks to."""
    quality = choice("Quality loss at most", "quality", [_ANY, *get_args(QualityMargin)])
    figures = [
        _figure(label, key)
        for label, key in (
            ("Speed-up at least (times)", "speedup"),
            ("Latency at most (ms)", "latency"),
            ("Peak memory at most (MiB)", "memory"),
        )
    ]
    return Limits.of(None if quality == _ANY else quality, *figures)


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


def _figure(label: str, key: str) -> float | None:
    """A positive number; None where it is left empty."""
    if key not in st.session_state:
        text = st.query_params.get(key, "")
        st.session_state[key] = float(text) if _POSITIVE.fullmatch(text) else None
    value: float | None = st.sidebar.number_input(label, min_value=1e-6, value=None, key=key)
    if value is None:
        st.query_params.pop(key, None)
    else:
        st.query_params[key] = f"{value:g}"
    return value
