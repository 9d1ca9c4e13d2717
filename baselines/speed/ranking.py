"""Full-ranking evaluation beside the bare matrix product and top-k, and the memory it takes."""

from __future__ import annotations

import resource
import subprocess
import sys

import torch

from baselines.base import Dataset, Split
from baselines.models.two_tower import TwoTower
from baselines.speed import Goal, SpeedRow, race, time_row
from baselines.tasks.ranking import BLOCK, TOP
from baselines.tasks.retrieval import Retrieval

DIM = 64
TAKEN = 20  # training interactions of a user
CPU = torch.device("cpu")


def catalogue(users: int, items: int) -> tuple[Dataset, TwoTower]:
    """Random interactions, one to be found for each user, and a model with random vectors."""
    generator = torch.Generator().manual_seed(0)

    def split(rows: int) -> Split:
        user = torch.arange(users).repeat_interleave(rows)
        item = torch.randint(items, (len(user),), generator=generator)
        return Split((user, item), torch.ones(len(user)), user, item)

    fields = {"user": users, "item": items}
    data = Dataset("random", split(TAKEN), split(1), split(1), fields, "Random interactions.")
    return data, TwoTower(users, items, DIM)


def evaluate(data: Dataset, model: TwoTower) -> float:
    """nDCG@10 of the valid split, ranks and lists by the task."""
    task = Retrieval()
    predictor = task.predictor(model, data)
    return task.metrics[0](task.score(predictor, data, data.valid, CPU))


@torch.inference_mode()
def bare(model: TwoTower, users: int) -> None:
    """Scores of all items and the best of them, block by block."""
    index = model.item.weight.T
    for block in torch.arange(users).split(max(1, BLOCK // index.shape[1])):
        (model.user.weight[block] @ index).topk(TOP)


def peak_mb(items: int, users: int) -> float:
    """The most memory, in MB, that an evaluation takes beyond data, model and index."""
    code = f"from baselines.speed.ranking import _peak; print(_peak({users}, {items}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _peak(users: int, items: int) -> float:
    data, model = catalogue(users, items)
    task = Retrieval()
    predictor = task.predictor(model, data)  # with the index of all items
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    task.score(predictor, data, data.valid, CPU)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def rows(quick: bool = False) -> list[SpeedRow]:
    """The time at 10⁵ items, and the peak memory at 10⁴ and 10⁶."""
    users, items = (2000, 2000) if quick else (4000, 100_000)
    data, model = catalogue(users, items)
    raced = race(lambda: evaluate(data, model), lambda: bare(model, users), 2 if quick else 6)
    note = (
        f"{users} users × {items} items, d{DIM}, {torch.get_num_threads()} threads; bare: the "
        f"matrix product and the first {TOP}. Time is proportional to the users"
    )
    made = [time_row("full ranking", raced, Goal("at most", 1.5), note=note)]
    small, large = (1000, 4000) if quick else (10_000, 1_000_000)
    low, high = (peak_mb(size, 200 if quick else 2000) for size in (small, large))
    memory = SpeedRow(
        "full ranking, peak memory", "MB", high, low, high / low if low else None,
        goal=Goal("at most", 1.5), note=f"{large} items; bare: the same at {small} items",
    )  # fmt: skip
    made.append(memory)
    return made
