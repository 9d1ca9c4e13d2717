"""Row caches: look-ups beside a cache of one id at a time, hits beside what theory says, a slow
store's time hidden by looking ahead, and the tail of a server's latency."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from baselines.data.draws import zipf
from baselines.models.layers import MLP
from bench.caching import che, optimum, zipf_probabilities
from bench.meters.clock import time_window
from bench.serving.queue import Policy as Queue
from bench.serving.queue import WallClock, poisson, serve
from bench.speed import Goal, SpeedRow, compared, one_thread, race, rate_row, time_row
from techniques.caching.eviction import LRU
from techniques.caching.prefetching import Prefetching
from techniques.caching.row_cache import Policy, RowCache, StoredEmbedding
from techniques.caching.row_store import RowStore
from techniques.caching.tiny_lfu import TinyLFU

DIM, BATCH, EXPONENT, SHARE = 16, 4096, 1.05, 0.1
WIDTH, LAYERS, ASKED, MICROSECONDS = 512, 12, 256, 50.0  # of the model that hides a store
LOAD, FIELDS, SLOW = 0.8, 26, 100.0  # of a server: its share of the peak, ids a request, µs a row
HIDDEN = (400, 400, 400)  # of the click model of that server


class OneByOne:
    """LRU over an OrderedDict: each id is looked up, moved to the end, fetched or evicted alone."""

    def __init__(self, table: np.ndarray, capacity: int) -> None:
        self.table, self.capacity = table, capacity
        self.rows: OrderedDict[int, np.ndarray] = OrderedDict()

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """ids: [N]. Returns [N, d]."""
        found = []
        for i in ids.tolist():
            row = self.rows.get(i)
            if row is not None:
                self.rows.move_to_end(i)
            else:
                row = self.table[i].copy()
                if len(self.rows) >= self.capacity:
                    self.rows.popitem(last=False)
                self.rows[i] = row
            found.append(row)
        return np.stack(found)


class Deep(nn.Module):
    """Rows of a table, then LAYERS matrix products on each."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table
        self.layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64 [B]. Returns [B]."""
        x: Tensor = self.layers(self.table(ids).repeat(1, WIDTH // DIM)).sum(1)
        return x


class Clicks(nn.Module):
    """A click model: the rows of a request's fields, side by side, through an MLP."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table, self.mlp = table, MLP(FIELDS * DIM, HIDDEN)
        self.head = nn.Linear(self.mlp.out, 1)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64 [B, FIELDS]. Returns [B]."""
        x: Tensor = self.head(self.mlp(self.table(ids).flatten(1))).squeeze(1)
        return x


def stream(rows: int, batches: int, size: int, seed: int = 0) -> list[np.ndarray]:
    """Batches of Zipf ids over `rows`, popular ones anywhere among them."""
    rng = np.random.default_rng(seed)
    place = rng.permutation(rows)
    return [place[zipf(size, rows, EXPONENT, rng)] for _ in range(batches)]


@torch.inference_mode()
def rows(quick: bool = False) -> list[SpeedRow]:
    """Look-ups a second, hit rates of LRU and W-TinyLFU, the hidden share of a store's time, and
    the 99th percentile of a server's latency; one thread."""
    with one_thread():
        return [_look_ups(quick), *_hit_rates(quick), _hidden(quick), _tail(quick)]


def _look_ups(quick: bool) -> SpeedRow:
    count = 5000 if quick else 100_000
    capacity, table = int(SHARE * count), torch.randn(count, DIM)
    warm, timed = stream(count, 40, BATCH), stream(count, 20 if quick else 100, BATCH, seed=1)
    cache, plain = RowCache(RowStore(table), LRU(capacity)), OneByOne(table.numpy(), capacity)
    for ids in warm:
        cache(torch.from_numpy(ids))
        plain(ids)
    raced = race(
        lambda: [cache(torch.from_numpy(ids)) for ids in timed],
        lambda: [plain(ids) for ids in timed],
        pairs=2 if quick else 6,
    )
    note = (
        f"Zipf {EXPONENT} over {count} rows of {DIM}, {SHARE:.0%} held, a store as fast as memory; "
        f"{len(timed)} batches a turn; bare: an OrderedDict asked one id after another"
    )
    work, amount = f"LRU look-ups, batch {BATCH}", len(timed) * BATCH
    return rate_row(work, "look-ups/s", amount, raced, Goal("at least", 10), note=note)


def _hit_rates(quick: bool) -> list[SpeedRow]:
    count, batches = (2000, 60) if quick else (10_000, 1200)
    size, capacity = 256, int(SHARE * count)
    ids = stream(count, batches, size)
    half = slice(batches // 2, None)  # what comes before fills the caches

    def measured(policy: Policy) -> float:
        cache = RowCache(RowStore(torch.zeros(count, 1)), policy)
        before = cache.counts
        for number, batch in enumerate(ids):
            if number == half.start:
                before = cache.counts
                cache.counts = type(before)()
            cache(torch.from_numpy(batch))
        return cache.counts.hits / cache.counts.asked

    predicted = che(zipf_probabilities(count, EXPONENT), capacity, size).request
    best = optimum(ids, capacity).of(half).rates().request
    made = []
    compared: list[tuple[str, Callable[[int], Policy], float, float, str]] = [
        ("LRU hits", LRU, predicted, 0.98, "Che's approximation"),
        ("W-TinyLFU hits", TinyLFU, best, 0.9, "Belady's optimum of the same stream"),
    ]
    for work, policy, bare, least, peer in compared:
        ours = measured(policy(capacity))
        note = (
            f"share of look-ups, Zipf {EXPONENT} over {count} rows, {SHARE:.0%} held, batches of "
            f"{size}, once the cache is full; bare: {peer}"
        )
        goal = Goal("at least", least)
        made.append(SpeedRow(work, "hit rate", ours, bare, ours / bare, goal=goal, note=note))
    return made


def _hidden(quick: bool) -> SpeedRow:
    count, calls = 5000, 5 if quick else 30
    table = nn.Embedding.from_pretrained(torch.randn(count, DIM))
    requests = [(torch.from_numpy(ids),) for ids in stream(count, calls, ASKED)]
    memory = Deep(table)
    alone = Deep(StoredEmbedding(RowStore(table.weight, MICROSECONDS * 1e-6)))
    ahead = Prefetching(alone, requests[0])
    alone.layers = memory.layers
    models = (memory, alone, ahead)
    least = [math.inf] * len(models)  # what else runs on the host only adds
    for _ in range(2 if quick else 6):
        for i, model in enumerate(models):
            least[i] = min(least[i], time_window(model, requests, None)[0] / 1e9)
    held, stored, hidden = least
    note = (
        f"of the time of a store of {MICROSECONDS:g} µs a row, emulated; a call computes "
        f"{held / calls * 1e3:.1f} ms and fetches {(stored - held) / calls * 1e3:.1f} ms; bare: "
        "without looking ahead"
    )
    share, goal = (stored - hidden) / (stored - held), Goal("at least", 0.8, "ours")
    return SpeedRow("store time hidden by prefetch", "share", share, 0.0, goal=goal, note=note)


def _tail(quick: bool) -> SpeedRow:
    count, asked, pairs = (2000, 100, 2) if quick else (10_000, 1000, 10)
    table = nn.Embedding.from_pretrained(torch.randn(count, DIM))
    store = RowStore(table.weight, SLOW * 1e-6)
    every = Clicks(StoredEmbedding(store)).eval()
    held = Clicks(RowCache(store, LRU(int(SHARE * count)))).eval()
    held.mlp, held.head = every.mlp, every.head
    drawn = torch.from_numpy(np.stack(stream(count, 30, BATCH)))
    for ids in drawn[:20]:
        held.table(ids)
    requests = [(ids,) for ids in drawn[20:].reshape(-1)[: asked * FIELDS].view(-1, 1, FIELDS)]
    clock = WallClock()
    alone = time_window(every, requests[: asked // 5], None)[0] / (asked // 5)  # ns a request
    queue = Queue(max_batch=1, max_delay=0, max_queue=asked)

    def p99(model: nn.Module, turn: int) -> float:
        arrivals = poisson(LOAD / alone * 1e9, asked, [turn])
        shown = serve(arrivals, lambda members: model(*requests[members[0]]), queue, clock)
        return float(np.percentile(shown.after(asked // 10).latency, 99)) / 1e9

    times = []
    for turn in range(pairs):
        order = (held, every) if turn % 2 else (every, held)
        found = {model: p99(model, turn) for model in order}
        times.append((found[held], found[every]))
    raced = compared(times)
    note = (
        f"requests of {FIELDS} ids by a Poisson process at {LOAD:.0%} of what the server does "
        f"without a cache, {alone / 1e6:.1f} ms a request, {asked} a turn; "
        f"an MLP of {'×'.join(map(str, HIDDEN))}; a store of {SLOW:g} µs a row, emulated; "
        f"Zipf {EXPONENT} over {count} rows, {SHARE:.0%} held by LRU; "
        "bare: every row from the store"
    )
    return time_row("p99 under load, with LRU", raced, Goal("at most", 0.2), note=note)
