"""The benchmark matrix: `pytest bench` runs the default suite, one test per cell."""

from __future__ import annotations

import pytest

from baselines.errors import LeanRecError
from bench.plugin import MATRIX
from bench.run import PlannedCell


def test_cell(matrix_cell: PlannedCell, request: pytest.FixtureRequest) -> None:
    """The cell is measured, nothing voids it, and the suite's gates hold."""
    if matrix_cell.skip:
        pytest.skip(matrix_cell.skip)
    matrix = request.config.stash[MATRIX]
    try:
        result = matrix.measure(matrix_cell)
    except LeanRecError as error:
        pytest.fail(str(error), pytrace=False)
    assert not result.failures, "; ".join(result.failures)
    if result.seconds:
        matrix.replay(result, request.getfixturevalue("benchmark"))
    assert not result.broken_gates, "; ".join(result.broken_gates)
