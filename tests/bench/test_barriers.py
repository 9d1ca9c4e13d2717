"""How threads wait must be said before torch is imported, which reads it then."""

from __future__ import annotations

import subprocess
import sys


def test_the_variables_can_be_had_without_importing_torch() -> None:
    code = "import sys, bench.cli, bench.barriers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
