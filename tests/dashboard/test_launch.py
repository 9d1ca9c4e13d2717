"""Starting the dashboard."""

import subprocess
import sys
from pathlib import Path

import pytest

from baselines.errors import LeanRecError
from dashboard.launch import launch


def test_it_serves_this_machine_only_and_reports_to_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    assert launch([Path("a run")], 8600) == 3
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert "--server.address=127.0.0.1" in command
    assert "--server.headless=true" in command
    assert "--browser.gatherUsageStats=false" in command
    assert "--server.port=8600" in command
    assert command[-2:] == ["--", str(tmp_path / "a run")]


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_does_not_exist_is_a_clear_error(port: int) -> None:
    with pytest.raises(LeanRecError, match="65535"):
        launch([Path()], port)
