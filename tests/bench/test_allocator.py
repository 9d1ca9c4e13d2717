import platform
import subprocess
import sys

from bench.allocator import keep_freed_memory

CODE = """
import resource, subprocess, sys
import numpy as np
from bench.allocator import keep_freed_memory

if sys.argv[1] != "default":
    assert keep_freed_memory()
if sys.argv[1] == "hand down":
    sys.exit(subprocess.run([sys.executable, "-c", sys.argv[2], "default"]).returncode)

def step():
    return len([np.ones(1 << 20) for _ in range(12)])  # of 8 MiB each, all alive at once

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_is_kept_is_not_faulted_in_anew() -> None:
    if platform.libc_ver()[0] != "glibc":  # another C library has nothing to be told
        assert not keep_freed_memory()
        return

    def faults(how: str) -> int:
        command = [sys.executable, "-c", CODE, how, CODE]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < 100
    assert faults("hand down") < 100
    assert faults("default") > 10 * 100
