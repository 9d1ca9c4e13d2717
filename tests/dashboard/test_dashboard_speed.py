"""The timing of pages times every page, and says where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from baselines.errors import LeanRecError
from dashboard.app import VIEWS
from dashboard.speed import main, timings


@pytest.mark.slow
def test_every_view_is_timed(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["speed", str(run_folder)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == list(VIEWS)
    assert sys.argv == ["speed", str(run_folder)]


def test_a_run_that_cannot_be_shown_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LeanRecError, match="is not a run"):
        timings(tmp_path)
