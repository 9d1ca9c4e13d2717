"""Fixtures of the dashboard's tests: the same known truths as the reports' tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))

from synthetic_run import TRUTHS, write_run
from synthetic_serving import SERVING


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two baselines and two stacks, under every scenario."""
    truths = {name: TRUTHS[name] for name in ("control", "int8-linear", "bf16")}
    return write_run(tmp_path_factory.mktemp("run"), truths, more=SERVING)
