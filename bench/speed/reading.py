"""Reading and splitting ratings in MovieLens' layout beside pandas: seconds and peak memory.

Each arm runs in a process of its own, so that its peak is its own; imports are not timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from bench.speed import Goal, SpeedRow, compared, time_row

ROWS, QUICK_ROWS = 25_000_000, 200_000
ITEMS = 59_047
PAIRS = 6  # runs of each arm
START = "import json, sys, time\n"
# Not ru_maxrss, which begins at what the parent held.
END = (
    "\nseconds = time.perf_counter() - start"
    "\npeak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]"
    "\nprint(json.dumps([seconds, int(peak)]))"
)
OURS = (
    START
    + """
from baselines.data.movielens import ML25M
source = ML25M(path=sys.argv[1], split="leave-one-out")
start = time.perf_counter()
data = source.retrieval()
"""
    + END
)
PANDAS = (
    START
    + """
import pandas as pd
start = time.perf_counter()
frame = pd.read_csv(sys.argv[1] + "/ratings.csv")
rank = frame.groupby("userId")["timestamp"].rank(method="first", ascending=False)
data = frame[rank > 2], frame[rank == 2], frame[rank == 1]
"""
    + END
)


def rows(quick: bool = False) -> list[SpeedRow]:
    """Seconds and peak MB of leave-one-out parts; ours also codes the ids and makes segments."""
    count = QUICK_ROWS if quick else ROWS
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), count)
        pairs = [[_arm(code, folder) for code in (OURS, PANDAS)] for _ in range(PAIRS)]
    raced = compared([(ours[0], bare[0]) for ours, bare in pairs])
    mb, bare_mb = (max(pair[arm][1] for pair in pairs) for arm in (0, 1))
    note = f"{count} ratings, leave-one-out; bare: pandas read_csv and groupby"
    work = "Reading and splitting ratings"
    return [
        time_row(work, raced, Goal("at most", 0.2), note=note),
        SpeedRow(f"{work}, peak", "MB", mb, bare_mb, mb / bare_mb, None, Goal("at most", 0.5),
                 note=note),
    ]  # fmt: skip


def generate(folder: Path, rows: int) -> None:
    """Write ``ratings.csv`` and ``movies.csv``: distinct pairs by user, then item; Zipf items."""
    rng = np.random.default_rng(0)
    users = max(rows // 154, 1)
    sizes = np.clip(rng.lognormal(0, 1.2, users), 0.15, 60)
    sizes = np.maximum(np.floor(sizes / sizes.sum() * rows), 3).astype(np.int64)
    user = np.repeat(np.arange(users), sizes)
    place = np.arange(len(user)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    quantile = (place + rng.random(len(user))) / sizes[user]
    item = np.floor(ITEMS**quantile).astype(np.int64) + place  # + place: distinct within a user
    start = rng.integers(789_652_009, 1_574_327_703, users)
    pl.DataFrame(
        {
            "userId": user + 1,
            "movieId": item,
            "rating": rng.integers(1, 11, len(user)) / 2,
            "timestamp": start[user] + rng.integers(0, 10**6, len(user)),
        }
    ).write_csv(folder / "ratings.csv")
    films = pl.DataFrame({"movieId": np.unique(item)})
    films.with_columns(title=pl.lit("Film (1999)"), genres=pl.lit("Drama|War")).write_csv(
        folder / "movies.csv"
    )


def _arm(code: str, folder: str) -> tuple[float, float]:
    """Seconds, and the peak of resident memory in MB (on Linux)."""
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )
    seconds, kibibytes = json.loads(done.stdout)
    return seconds, kibibytes * 1024 / 1e6
