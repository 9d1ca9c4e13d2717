"""Fixtures of the reports' tests."""

from pathlib import Path

import pytest
from made_profile import made_profile
from synthetic_run import write_run

from bench.profiles.record import folder_in, write_profile
from bench.run import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of two baselines and seven stacks whose truths are known, with a profile."""
    folder, profile = write_run(tmp_path_factory.mktemp("run")), made_profile()
    write_profile(folder_in(folder, profile.cell), profile)
    return Run.load(folder)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of one baseline, one stack and the A/A arm."""
    from synthetic_run import TRUTHS

    truths = {name: TRUTHS[name] for name in ("control", "int8-linear")}
    return write_run(tmp_path_factory.mktemp("small"), truths, ["dcnv2"])
