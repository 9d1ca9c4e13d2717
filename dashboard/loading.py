"""What the pages read: runs, read anew where their files have changed, and views made of them."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from bench.limits import Limit, reach
from bench.reading import Reader, Stamp
from bench.run import Run


@st.cache_resource(max_entries=16)
def reader(folder: Path) -> Reader:
    """The reader of a folder, which remembers what it read of unchanged files."""
    return Reader(folder)


@st.cache_resource(max_entries=16, show_spinner="Reading the run…")
def load(folder: Path, stamp: Stamp) -> Run:
    """The run, read once for every state of its files."""
    return reader(folder).read()


@st.cache_resource(max_entries=16, show_spinner=False)
def ends(folder: Path, stamp: Stamp) -> dict[Limit, tuple[float, float]]:
    """What `bench.limits.reach` says of a run, for every state of its files."""
    return reach(load(folder, stamp).effects)
