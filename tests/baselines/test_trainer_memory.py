"""Training a large table holds the table, its optimiser's state and the batches, little else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LIMIT = 1.2  # peak resident memory over the bytes that training must hold; a table more is 1.33

# A process of its own, because peak memory is a process's. VmHWM, unlike ru_maxrss, does not
# begin with what the parent held.
TRAIN = """
import json, re, sys
from pathlib import Path
import torch
from torch import Tensor
from baselines.base import BASELINES
from baselines.trainer import Trainer

def resident(which):
    status = Path("/proc/self/status").read_text()
    return int(re.search(which + r":\\s+(\\d+) kB", status)[1]) * 1024

def make(ids):
    made = BASELINES.make(
        f'dcnv2(dataset="planted(rows=12000, ids={ids})", sparse_embeddings=true, embedding_l2=0.0)'
    )
    data = made.data()
    torch.manual_seed(0)
    model = made.build(data)
    return data, model, Trainer(model, made.task, made.recipe, torch.device("cpu"), 0)

torch.set_num_threads(1)
data, model, trainer = make(1000)
trainer.fit(data)
before = resident("VmRSS")  # what a small table takes as well: libraries, activations, batches
data, model, trainer = make(300_000)
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
print(json.dumps({
    "rows": model.embedding.table.num_embeddings,
    "weights": size(model.parameters()),
    "state": size(states),
    "data": size(splits),
    "peak": resident("VmHWM") - before,
    "epochs": len(epochs),
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_three_million_rows_are_held_once_with_their_moments(tmp_path: Path) -> None:
    """In a training that is killed after two epochs, and in the one that goes on from there."""

    def train(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, str(tmp_path), *arguments],
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    train("kill")
    assert (tmp_path / "progress.json").exists()
    seen: dict[str, Any] = json.loads(train())
    assert seen["rows"] == 3 * 10**6
    assert seen["epochs"] >= 1  # the best weights have been written at least once
    table = 3 * 10**6 * 16 * 4
    assert seen["weights"] >= table
    assert seen["state"] >= 2 * table
    needed = seen["weights"] + seen["state"] + seen["data"]
    assert seen["peak"] <= LIMIT * needed, f"{seen['peak'] / needed:.2f} of what it must hold"
