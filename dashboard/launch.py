"""Starting the dashboard's server, for this machine only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from baselines.errors import LeanRecError


def launch(runs: list[Path], port: int | None = None) -> int:
    """Serve the dashboard of `runs` on 127.0.0.1 until it is interrupted; its exit code.

    port: 1 to 65535; None takes the first free one from 8501 on. Raises LeanRecError for another.
    """
    if port is not None and not 1 <= port <= 65535:
        raise LeanRecError(
            f"Port {port} does not exist.", "Nothing was started.", "Take one from 1 to 65535."
        )
    options = {
        "server.address": "127.0.0.1",
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "client.toolbarMode": "viewer",
        "browser.gatherUsageStats": "false",
    }
    if port is not None:
        options["server.port"] = str(port)
    app = Path(__file__).with_name("app.py")
    command = [sys.executable, "-m", "streamlit", "run", str(app)]
    command += [f"--{name}={value}" for name, value in options.items()]
    try:
        return subprocess.run(
            [*command, "--", *(str(run.resolve()) for run in runs)], check=False
        ).returncode
    except KeyboardInterrupt:
        return 0
