"""Fixtures of the dashboard's tests: the same known truths as the reports' tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))

from hostile_run import write_hostile_run
from made_profile import made_profile
from synthetic_run import TRUTHS, Truth, write_run
from synthetic_serving import SERVING

from bench.profiles.record import folder_in, write_profile


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two baselines and two stacks, with a profile of a cell."""
    truths = {name: TRUTHS[name] for name in ("control", "int8-linear", "bf16")}
    folder = write_run(tmp_path_factory.mktemp("run"), truths)
    profile = made_profile()
    write_profile(folder_in(folder, profile.cell), profile)
    return folder


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one baseline and one stack, under the scenarios of serving too."""
    truths = {"bf16": TRUTHS["bf16"]}
    folder = tmp_path_factory.mktemp("served")
    return write_run(folder, truths, ["dcnv2"], processes=3, more=SERVING)


@pytest.fixture(scope="session")
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of which nothing has been measured yet."""
    folder = tmp_path_factory.mktemp("empty")
    return write_run(folder, {"bf16": Truth()}, ["dcnv2"], processes=0, finished=False)


@pytest.fixture(scope="session")
def crashed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unfinished run, one of whose records is cut off."""
    truths = {name: TRUTHS[name] for name in ("control", "bf16")}
    folder = tmp_path_factory.mktemp("crashed")
    write_run(folder, truths, ["dcnv2"], processes=2, finished=False)
    record = sorted((folder / "records").glob("*.jsonl"))[0]
    record.write_text(record.read_text()[:300])
    return folder


@pytest.fixture(scope="session")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run all of whose names are hostile."""
    return write_hostile_run(tmp_path_factory.mktemp("hostile"))
