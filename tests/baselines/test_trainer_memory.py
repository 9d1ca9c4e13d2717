"""Training a large table holds the table, its optimiser's state and the batches, little else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LIMIT = 1.3  # peak resident memory over the bytes that training must hold

# A process of its own, because peak memory is a process's. VmHWM, unlike ru_maxrss, does not
# begin with what the parent held.
TRAIN = """
import json, re, sys
from pathlib import Path
import torch
from torch import Tensor
from baselines.base import BASELINES
from baselines.trainer import Trainer

torch.set_num_threads(1)
made = BASELINES.make(
    'dcnv2(dataset="planted(rows=12000, ids=1_000_000)", sparse_embeddings=true, embedding_l2=0.0)'
)
data = made.data()
torch.manual_seed(0)
model = made.build(data)
recipe = made.recipe
trainer = Trainer(model, made.task, recipe, torch.device("cpu"), 0)
epochs = []

def note(epoch):
    epochs.append(epoch.valid)
    if len(epochs) == 2 and "kill" in sys.argv:
        sys.exit()

trainer.fit(data, note, Path(sys.argv[1]))

def size(tensors):
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))

states = [t for o in trainer.optimisers for s in o.state.values() for t in s.values()]
splits = [c for s in (data.train, data.valid, data.test) for c in (*s.inputs, s.labels)]
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({
    "rows": model.embedding.table.num_embeddings,
    "weights": size(model.parameters()),
    "state": size(states),
    "data": size(splits),
    "peak": peak,
    "epochs": len(epochs),
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_million_rows_are_held_once_with_their_moments(tmp_path: Path) -> None:
    """In a training that is killed after two epochs, and in the one that goes on from there."""

    def train(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, str(tmp_path), *arguments],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    train("kill")
    assert (tmp_path / "progress.json").exists()
    seen: dict[str, Any] = json.loads(train())
    assert seen["rows"] == 10**7
    assert seen["epochs"] >= 1  # the best weights have been written at least once
    table = 10**7 * 16 * 4
    assert seen["weights"] >= table
    assert seen["state"] >= 2 * table
    needed = seen["weights"] + seen["state"] + seen["data"]
    assert seen["peak"] <= LIMIT * needed, f"{seen['peak'] / needed:.2f} of what it must hold"
