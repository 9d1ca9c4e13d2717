"""How long each page takes to open and to follow a filter: ``python -m dashboard.speed RUN…``.

Seconds of processor time of the server; what a browser draws is not in them. A filter is timed
with a baseline that was not asked for before, so that nothing of the answer is kept already.
The first run is shown; the others are those that it is compared with.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from streamlit.testing.v1 import AppTest

from baselines.errors import LeanRecError
from dashboard.app import VIEWS


class Timing(NamedTuple):
    """Seconds that a view took to open for all of a run, and for one baseline of it."""

    view: str
    opened: float
    filtered: float


def timings(*runs: Path) -> tuple[float, list[Timing]]:
    """Seconds until the first page of the first run is there, then the timing of every view.

    Raises LeanRecError for a run that cannot be shown.
    """
    path = Path(__file__).with_name("app.py")
    before, sys.argv = sys.argv, [str(path), *map(str, runs)]
    try:
        app = AppTest.from_file(str(path), default_timeout=600)
        first = _seconds(app)
        if app.error:
            raise LeanRecError(app.error[0].value, "Nothing was timed.", "")
        baseline = app.multiselect(key="baseline").options[0]
        return first, [_timing(app, view, baseline) for view in VIEWS]
    finally:
        sys.argv = before


def _timing(app: Any, view: str, baseline: str) -> Timing:
    app.radio(key="view").set_value(view)
    opened = _seconds(app)
    app.multiselect(key="baseline").set_value([baseline])
    filtered = _seconds(app)
    app.multiselect(key="baseline").set_value([])
    return Timing(view, opened, filtered)


def _seconds(app: Any) -> float:
    start = time.process_time()
    app.run()
    return time.process_time() - start


def main() -> None:
    """Print the timings of the runs that are named."""
    if len(sys.argv) < 2:
        sys.exit("Usage: python -m dashboard.speed RUN…")
    try:
        first, rows = timings(*map(Path, sys.argv[1:]))
    except LeanRecError as error:
        sys.exit("\n".join(filter(None, (error.cause, error.consequence, error.fix))))
    print(f"first page, with the reading of the run: {first:.1f} s")
    for row in rows:
        print(f"{row.view}: opened in {row.opened:.2f} s, filtered in {row.filtered:.2f} s")


if __name__ == "__main__":
    main()
