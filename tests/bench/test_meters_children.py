"""What processes that were started take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.meters.children import Children

CHILD = """
import sys, time
held = bytearray(64 << 20)
start = time.process_time()
while time.process_time() - start < 0.2:
    pass
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_child_is_counted_while_it_runs() -> None:
    alone = Children()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        children = Children()
        seconds, (peak, now) = children.seconds(), children.resident_bytes()
        assert seconds - alone.seconds() >= 0.19
        if Path("/proc/self/status").exists():
            before = alone.resident_bytes()
            assert peak - before[0] > 64 << 20
            assert peak >= now > 64 << 20
    assert children.seconds() <= alone.seconds() + 0.01
    assert children.resident_bytes() == alone.resident_bytes()


def test_no_children_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.Process.children", lambda self, recursive: [])
    nobody = Children()
    assert (nobody.seconds(), nobody.resident_bytes()) == (0.0, (0, 0))
