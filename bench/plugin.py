"""`pytest bench`: the matrix as tests, one a cell, over the same engine as `leanrec run`.

Loaded in every pytest process of an environment that has LeanRec. Where the command line does not
name the matrix, it imports nothing heavy, and option names such as --device are left to others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bench.matrix import Matrix

_HERE = Path(__file__).resolve().parent
MATRIX: pytest.StashKey[Matrix] = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """The options of the matrix, where the command line names it."""
    if not _asked(early_config):
        return
    group = parser.getgroup("leanrec", "LeanRec benchmark matrix (pytest bench)")
    group.addoption("--suite", default="default", help="suite to run (default: default)")
    for kind in ("baseline", "technique", "scenario"):
        group.addoption(
            f"--{kind}", action="append", default=[], help=f"this {kind} instead of the suite's"
        )
    group.addoption("--device", default="cpu", help="cpu or cuda (default: cpu)")
    group.addoption("--budget", type=float, default=None, help="seconds after which to stop")
    group.addoption("--out", type=Path, default=None, help="folder of the run")
    group.addoption(
        "--plugin", action="append", type=Path, default=[], help="a Python file of your own"
    )


def _asked(config: pytest.Config) -> bool:
    """Whether an argument is this package: as a folder, a file in it, or by name (--pyargs)."""
    known, here = config.known_args_namespace, config.invocation_params.dir
    names = [str(arg).split("::", maxsplit=1)[0] for arg in known.file_or_dir] or [str(here)]
    return any(
        (here / name).resolve().is_relative_to(_HERE)
        or (known.pyargs and name.split(".", maxsplit=1)[0] == __package__)
        for name in names
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The matrix is left out of sessions that do not name it, such as ``pytest .``."""
    return True if collection_path == _HERE / "test_matrix.py" and not _asked(config) else None


def pytest_configure(config: pytest.Config) -> None:
    """Refuse xdist before it starts its workers."""
    if _asked(config) and (config.getoption("numprocesses", None) or config.getoption("tx", None)):
        raise pytest.UsageError(
            "The benchmark matrix refuses to run under xdist: cells timed side by side measure "
            "each other. Run it without -n."
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Plan the matrix; a mistake of the user ends the session with one message."""
    if not _asked(session.config):
        return
    from baselines.errors import LeanRecError
    from bench.matrix import Matrix

    try:
        session.config.stash[MATRIX] = Matrix.of(session.config)
    except LeanRecError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per planned cell, with the cell's id."""
    if "matrix_cell" in metafunc.fixturenames:
        matrix = metafunc.config.stash[MATRIX]
        cells = matrix.plan.cells
        metafunc.parametrize(
            "matrix_cell",
            [pytest.param(c, marks=matrix.benchmark_mark(c)) for c in cells],
            ids=[c.cell.id for c in cells],
        )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep of the plan what -k and the command line have left."""
    if MATRIX in config.stash:
        config.stash[MATRIX].keep(
            {item.callspec.params["matrix_cell"].cell.id
             for item in items if hasattr(item, "callspec")
             and "matrix_cell" in item.callspec.params}
        )  # fmt: skip


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where the records are, and the engine's own cost."""
    config = terminalreporter.config
    if MATRIX in config.stash:
        for line in config.stash[MATRIX].summary():
            terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of the run's folder."""
    if MATRIX in config.stash:
        config.stash[MATRIX].close()
