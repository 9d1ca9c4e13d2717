"""Full-ranking evaluation beside the bare matrix product and top-k, and the memory it takes."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import torch

from baselines.base import Dataset, Split
from baselines.models.two_tower import TwoTower
from baselines.tasks.ranking import BLOCK, TOP
from baselines.tasks.retrieval import Retrieval
from bench.meters.memory import peak_rss_bytes, reset_peak_rss, rss_bytes
from bench.speed import Goal, SpeedRow, race, time_row

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
def bare(model: TwoTower, users: int, items: int) -> None:
    """Scores of all items and the best of them, block by block."""
    index = model.item(torch.arange(items)).T
    for block in torch.arange(users).split(max(1, BLOCK // items)):
        (model.user(block) @ index).topk(TOP)


def peak_mb(items: int, users: int) -> float:
    """The most memory, in MB, that an evaluation takes beyond data, model and index; NaN where the
    system does not tell."""
    code = f"from bench.speed.ranking import _peak; print(_peak({users}, {items}))"
    # What is freed goes back at once, so that the peak is what is held and not what lies in holes.
    variables = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=variables
    )
    return float(done.stdout)


def _peak(users: int, items: int) -> float:
    data, model = catalogue(users, items)
    task = Retrieval()
    predictor = task.predictor(model, data)  # with the index of all items
    known, before = reset_peak_rss(), rss_bytes()
    task.score(predictor, data, data.valid, CPU)
    peak = peak_rss_bytes()
    return (peak - before) / 1e6 if known and peak is not None else math.nan


def rows(quick: bool = False) -> list[SpeedRow]:
    """The time at 10⁵ items, and the peak memory at 10⁴ and 10⁶."""
    users, items = (2000, 2000) if quick else (4000, 100_000)
    data, model = catalogue(users, items)
    raced = race(
        lambda: evaluate(data, model), lambda: bare(model, users, items), 2 if quick else 6
    )
    note = (
        f"{users} users × {items} items, d{DIM}, {torch.get_num_threads()} threads; bare: the "
        f"matrix product and the first {TOP}. Time is proportional to the users"
    )
    made = [time_row("full ranking", raced, Goal("at most", 1.5), note=note)]
    small, large = (1000, 4000) if quick else (10_000, 1_000_000)
    low, high = (peak_mb(size, 200 if quick else 2000) for size in (small, large))
    if math.isnan(high):
        return made
    note = f"{large} items; bare: the same at {small} items"
    memory = ("full ranking, peak memory", "MB", high, low, high / low, None)
    return [*made, SpeedRow(*memory, Goal("at most", 1.5), note=note)]
