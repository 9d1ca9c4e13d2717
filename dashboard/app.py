"""The dashboard: the tables and figures of `reports`, with filters. It computes nothing of its own.

Started by ``leanrec dashboard RUN…``, which is ``streamlit run dashboard/app.py -- RUN…``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import streamlit as st

from baselines.errors import LeanRecError
from bench.run import Run
from reports import html_page, pages
from reports.answer import state
from reports.markdown_page import plain
from reports.pages import Block, Heading, Items, Section, Table, Text
from reports.select import Selection, techniques_of

Sections = Callable[[Run], Iterable[Section]]
Stamp = tuple[tuple[str, int, int], ...]  # name, time and size of every file of a run


def _one(title: str, blocks: Callable[[Run], tuple[Block, ...]]) -> Sections:
    return lambda run: (Section(title, blocks(run)),)


VIEWS: dict[str, Sections] = {
    "Answer": _one("The answer", pages.answer_blocks),
    "Verdicts": _one("Verdicts", pages.verdict_blocks),
    "Quality against speed": _one("Quality against speed", pages.quality_speed_blocks),
    "Effects": _one("Effects", pages.effect_blocks),
    "Segments": _one("Quality by segment", pages.segment_blocks),
    "Costs and skipped": pages.cost_sections,
    "Provenance": pages.provenance_sections,
}


def main(folders: list[Path]) -> None:
    """Draw the page for the runs in `folders`."""
    st.set_page_config("LeanRec", layout="wide")
    st.html(f"<style>{html_page.style('blocks.css')}</style>")
    if not folders:
        st.error("No run was given. Start it with: leanrec dashboard RUN")
        return
    folder = folders[0]
    if len(folders) > 1:
        names = [str(folder) for folder in folders]
        folder = folders[names.index(_choice("Run", "run", names))]
    stamp = _stamp(folder)
    try:
        run = _load(folder, stamp)
    except LeanRecError as error:
        st.error(plain(str(error)))
        return
    view = _choice("View", "view", list(VIEWS))
    selection = _selection(run)
    if st.sidebar.button("Reload", help="Read the records again; a run may be in progress."):
        st.cache_resource.clear()
        st.rerun()
    st.title(plain(f"LeanRec: {run.plan.suite}"))
    unfinished = run.summary is None or not run.summary.finished
    if unfinished and view != "Answer":  # which says so itself
        st.info(plain(state(run)))
    _warn(run)
    for section in _sections(folder, stamp, view, selection):
        st.header(plain(section.title))
        for block in section.blocks:
            _draw(block)


@st.cache_resource(max_entries=8, show_spinner="Reading the run…")
def _load(folder: Path, stamp: Stamp) -> Run:
    """The run, read once for every state of its files."""
    return Run.load(folder)


@st.cache_resource(max_entries=64, show_spinner="Drawing…")
def _sections(folder: Path, stamp: Stamp, view: str, selection: Selection) -> tuple[Section, ...]:
    """What `view` shows of the run, drawn once for every selection."""
    return tuple(VIEWS[view](selection.of(_load(folder, stamp))))


def _stamp(folder: Path) -> Stamp:
    files = [*folder.glob("*.json"), *folder.glob("records/*.jsonl")]
    found = ((path.name, path.stat()) for path in sorted(files))
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)


def _selection(run: Run) -> Selection:
    cells = [p.cell for p in run.plan.cells]
    techniques = (name for cell in cells for name in techniques_of(cell.stack))
    return Selection(
        baselines=_choices("Baseline", "baseline", (cell.baseline for cell in cells)),
        techniques=_choices("Technique", "technique", techniques),
        scenarios=_choices("Scenario", "scenario", (cell.scenario for cell in cells)),
        metrics=_choices("Metric", "metric", (e.metric for e in run.effects)),
    )


def _choice(label: str, key: str, options: list[str]) -> str:
    """One of `options`, kept in the address of the page."""
    wanted = st.session_state.get(key, st.query_params.get(key))
    st.session_state[key] = wanted if wanted in options else options[0]
    chosen = st.sidebar.radio(label, options, key=key, format_func=plain)
    st.query_params[key] = chosen
    return chosen


def _choices(label: str, key: str, options: Iterable[str]) -> list[str]:
    """Some of `options`, kept in the address of the page; none means all."""
    known = list(dict.fromkeys(options))
    wanted = st.session_state.get(key, st.query_params.get_all(key))
    st.session_state[key] = [name for name in wanted if name in known]
    chosen = st.sidebar.multiselect(label, known, key=key, placeholder="All")
    st.query_params[key] = chosen
    return chosen


def _warn(run: Run) -> None:
    blocks = pages.warning_blocks(run)
    if blocks:
        with st.expander(f"{len(run.warnings)} warnings", expanded=len(run.warnings) <= 5):
            for block in blocks:
                _draw(block)


def _draw(block: Block) -> None:
    match block:
        case Text(text):
            st.markdown(plain(text))
        case Heading(text):
            st.subheader(plain(text))
        case Items(items, True):
            for _, text in items:
                st.warning(plain(text))
        case Items(items):
            st.markdown("\n".join(f"- **{plain(lead)}** – {plain(text)}" for lead, text in items))
        case Table(frame, caption, True):
            with st.expander(plain(caption)):
                st.dataframe(frame, hide_index=True)
        case _:
            st.html(f'<div class="leanrec">{html_page.block(block)}</div>')


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
