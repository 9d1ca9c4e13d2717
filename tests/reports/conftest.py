"""Fixtures of the reports' tests."""

from pathlib import Path

import pytest
from synthetic_run import write_run

from bench.run import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of two baselines and seven stacks whose truths are known."""
    return Run.load(write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of one baseline, one stack and the A/A arm."""
    from synthetic_run import TRUTHS

    truths = {name: TRUTHS[name] for name in ("control", "int8-linear")}
    return write_run(tmp_path_factory.mktemp("small"), truths, ["dcnv2"])
