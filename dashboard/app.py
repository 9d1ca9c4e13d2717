"""The dashboard: the tables and figures of `reports`, with filters. It computes nothing of its own.

While a run is in progress, a page looks at the run's files every few seconds and follows them.
Started by ``leanrec dashboard RUN…``, which is ``streamlit run dashboard/app.py -- RUN…``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import streamlit as st

from baselines.errors import LeanRecError
from bench.limits import Limits
from bench.reading import Stamp, stamp
from bench.recommend import Objective, require_objective
from bench.records import CONTROL
from bench.run import Run, underway
from dashboard.loading import ends, load
from dashboard.parts import Piece, parts
from dashboard.sidebar import choice, limits, selection
from reports import comparison, html_page, numbers, pages, serving, views
from reports.answer import progress, state
from reports.markdown_page import plain
from reports.pages import Block, Heading, Items, Picture, Section, Table, Text
from reports.profiles.page import profile_sections
from reports.select import Selection

# Narrower margins than Streamlit's, so that wide tables fit; and no other CSV than ours, in which a
# text is never taken for a formula.
_STYLE = """
[data-testid=stMainBlockContainer] { padding: 3.5rem 2rem; }
[data-testid=stElementToolbarButton]:has([aria-label="Download as CSV"]) { display: none; }
"""
EVERY = 2.0  # seconds between two looks at the files of a run in progress


@dataclass(frozen=True)
class Asked:
    """What the reader wants to see: a part of the run, judged by limits or beside another run.

    one: the stack or the baseline that a page is about. runs: all that there are, where the page is
    about them, and other: the one that the shown run is compared with.
    """

    selection: Selection
    one: str = ""
    limits: Limits = field(default_factory=Limits)
    objective: Objective = "throughput"
    runs: tuple[tuple[Path, Stamp], ...] = ()
    other: Path | None = None


def _one(title: str, blocks: Callable[[Run], tuple[Block, ...]]) -> View:
    return lambda run, asked: (Section(title, blocks(asked.selection.of(run))),)


def _parts(sections: Callable[[Run], tuple[Section, ...]]) -> View:
    return lambda run, asked: sections(asked.selection.of(run))


def _trade_off(run: Run, asked: Asked) -> tuple[Section, ...]:
    part = asked.selection.of(run)
    return (Section(TRADE_OFF, views.quality_speed_blocks(part, asked.limits)),)


def _about(sections: Callable[[Run, str], tuple[Section, ...]]) -> View:
    return lambda run, asked: (
        sections(asked.selection.of(run), asked.one)
        if asked.one
        else (Section("Nothing to choose", (Text("This part of the run holds no technique."),)),)
    )


def _decide(run: Run, asked: Asked) -> tuple[Section, ...]:
    part = asked.selection.of(run)
    return (Section("What to use", pages.decide_blocks(part, asked.limits, asked.objective)),)


def _compare(run: Run, asked: Asked) -> tuple[Section, ...]:
    if asked.other is None:
        return (Section("Changes", (Text("Start the dashboard with two runs or more."),)),)
    runs = {path: asked.selection.of(load(path, seen)) for path, seen in asked.runs}
    earlier, later = comparison.in_order([runs[asked.other], runs[run.path]])
    return comparison.sections(earlier, later, comparison.in_order(runs.values()))


View = Callable[[Run, Asked], Iterable[Section]]
DECIDE, COMPARE, TRADE_OFF = "Decide", "Compare runs", "Quality against speed"
TECHNIQUE, BASELINE = "Technique", "Baseline"
SAY_THE_STATE = ("Overview", "Answer")  # how far the run is
VIEWS: dict[str, View] = {
    "Overview": _one("Overview", pages.overview_blocks),
    "Answer": _parts(pages.answer_sections),
    "Verdicts": _one("Verdicts", pages.verdict_blocks),
    DECIDE: _decide,
    TRADE_OFF: _trade_off,
    TECHNIQUE: _about(views.technique_sections),
    BASELINE: _about(views.baseline_sections),
    "Serving": _parts(serving.sections),
    "Effects": _one("Effects", pages.effect_blocks),
    "Stacks": _one("Stacks", pages.stack_blocks),
    "Segments": _one("Quality by segment", pages.segment_blocks),
    "Costs and skipped": _parts(pages.cost_sections),
    "Profile": _parts(profile_sections),
    COMPARE: _compare,
    "Provenance": _parts(pages.provenance_sections),
}


def main(folders: list[Path]) -> None:
    """Draw the page for the runs in `folders`."""
    st.set_page_config("LeanRec", layout="wide")
    st.html(f"<style>{html_page.style('blocks.css')}{_STYLE}</style>")
    if not folders:
        st.error("No run was given. Start it with: leanrec dashboard RUN")
        return
    folder = folders[0]
    if len(folders) > 1:
        names = [str(folder) for folder in folders]
        folder = folders[names.index(choice("Run", "run", names))]
    seen = stamp(folder)
    try:
        run = load(folder, seen)
    except LeanRecError as error:
        st.error(plain(str(error)))
        return
    view = choice("View", "view", list(VIEWS))
    asked = Asked(selection(run))
    if view in (TECHNIQUE, BASELINE):
        asked = _of_one(asked, asked.selection.of(run), view)
    if view == DECIDE:
        objective = choice("Objective", "objective", list(get_args(Objective)))
        asked = replace(asked, objective=require_objective(objective))
    if view in (DECIDE, TRADE_OFF):
        asked = replace(asked, limits=limits(ends(folder, seen)))
    if view == COMPARE:
        asked = _compared(asked, folders, folder)
    st.title(plain(f"LeanRec: {run.plan.suite}"))
    if run.summary is None or not run.summary.finished:
        if view not in SAY_THE_STATE:
            st.info(plain(state(run)))
        _follow(folder, seen)
    _warn(run)
    try:
        found = _pieces(folder, seen, view, asked)
    except LeanRecError as error:
        st.header(plain(view))
        st.info(plain(str(error)))
        return
    _show(view, found[_part(len(found), (view, asked)) - 1])


@st.cache_resource(max_entries=64, show_spinner="Drawing…")
def _pieces(folder: Path, seen: Stamp, view: str, asked: Asked) -> tuple[tuple[Piece, ...], ...]:
    """What `view` shows of the run, made once for everything that is asked."""
    return parts(view, VIEWS[view](load(folder, seen), asked))


@st.fragment(run_every=EVERY)
def _follow(folder: Path, seen: Stamp) -> None:
    """Tell what is being measured, and draw the page again once the run's files have changed."""
    if stamp(folder) != seen:
        st.rerun()
    st.info(plain(progress(underway(folder), _written(seen))))


def _written(seen: Stamp) -> float:
    """Seconds since the youngest file of `seen` was written."""
    return max(time.time() - max((moment for _, moment, _ in seen), default=0) / 1e9, 0.0)


def _part(count: int, shown: object) -> int:
    """The number of the part to show, kept in the address; the first of whatever is new."""
    if count == 1:
        st.query_params.pop("part", None)
        return 1
    if st.session_state.setdefault("shown", shown) != shown:
        st.session_state.update(shown=shown, part=1)
    wanted = st.session_state.get("part", st.query_params.get("part", "1"))
    number = int(wanted) if str(wanted).isdecimal() else 1
    st.session_state["part"] = min(max(number, 1), count)
    chosen = int(st.number_input(f"Part, of {count}", 1, count, key="part", width=300))
    st.query_params["part"] = str(chosen)
    return chosen


def _show(view: str, part: tuple[Piece, ...]) -> None:
    """Draw a part of a view, each title and heading once over what stands under it."""
    title = heading = ""
    if not part:
        st.header(plain(view))
        st.info("This run has nothing of the kind.")
    for piece in part:
        if piece.title != title:
            title, heading = piece.title, ""
            st.header(plain(title))
        if piece.heading != heading:
            heading = piece.heading
            _draw(Heading(heading))
        _draw(piece.block)
        if piece.note:
            st.caption(f"Rows {piece.note}.")
        _offer_files(piece.whole, piece.name)


def _of_one(asked: Asked, run: Run, view: str) -> Asked:
    """About one stack or baseline of the part that is shown; about none where it holds none."""
    cells = [p.cell for p in run.plan.cells]
    names = {
        TECHNIQUE: [cell.stack for cell in cells if cell.stack != CONTROL],
        BASELINE: [cell.baseline for cell in cells],
    }[view]
    known = list(dict.fromkeys(names))
    return replace(
        asked, one=choice(f"{view} shown", f"one-{view.lower()}", known, True) if known else ""
    )


def _compared(asked: Asked, folders: list[Path], folder: Path) -> Asked:
    """With all runs given, and another of them to compare with, where there is one."""
    others = [str(other) for other in folders if other != folder]
    if not others:
        return asked
    other = Path(choice("Compare with", "with", others))
    return replace(asked, runs=tuple((each, stamp(each)) for each in folders), other=other)


def _warn(run: Run) -> None:
    blocks = pages.warning_blocks(run)
    if blocks:
        count = len(run.warnings)
        with st.expander(f"{count} warning{'s'[: count - 1]}", expanded=len(run.warnings) <= 5):
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


def _offer_files(block: Block, name: str) -> None:
    """What a block shows can be taken away, as a file of that name."""
    match block:
        case Picture():
            with st.container(horizontal=True):
                _offer("PNG", f"{name}.png", "image/png", lambda: block.png)
                _offer("SVG", f"{name}.svg", "image/svg+xml", lambda: block.svg)
        case Table(frame):
            _offer("CSV", f"{name}.csv", "text/csv", lambda: numbers.frame_csv(frame))


def _offer(kind: str, name: str, mime: str, content: Callable[[], str | bytes]) -> None:
    """A button that makes the file when it is pressed."""
    st.download_button(kind, content, name, mime, key=name, on_click="ignore", type="tertiary")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
