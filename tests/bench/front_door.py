"""The command `leanrec` as a user meets it, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench import cli

TINY = """
about = "The smallest matrix that goes through everything"
baselines = ['toy = dcnv2(dataset="planted(rows=2000, ids=200)", width=16, depth=1)']
stacks = ["prune-unstructured"]
scenarios = ["single-stream(batch_sizes=[64])"]

[protocol]
looks = [2]
pairs = 2
block_seconds = 0.005
window_seconds = 0.005
min_iterations = 5
distinct_batches = 8
warmup_cap_seconds = 0.1
bootstraps = 50
memory_processes = 2
"""


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams. Never a traceback: what went wrong is said in sentences."""
        text = self.out + self.err
        assert "Traceback" not in text
        return text

    @property
    def json(self) -> Any:
        """The output as strict JSON."""
        return json.loads(self.out, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


class Leanrec:
    """Runs the command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Said:
        self._monkeypatch.setattr(sys, "argv", ["leanrec", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, *self._capsys.readouterr())


def in_own_process(*arguments: object, cwd: Path, timeout: float = 300, **variables: str) -> Said:
    """Run the command in a process of its own, with the cache of this session."""
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "bench.cli", *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
    return Said(ended.returncode, ended.stdout, ended.stderr)


def environment(**variables: str) -> dict[str, str]:
    """The environment of a child process: this one's, with the session's own cache."""
    return {**os.environ, "LEANREC_CACHE": os.environ["LEANREC_CACHE"], **variables}


def until(condition: Callable[[], bool], seconds: float = 120) -> bool:
    """Whether it comes true in that time, which a loaded host may need."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def tiny_suite(folder: Path, text: str = TINY, name: str = "tiny.toml") -> Path:
    """The smallest suite, as a file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
