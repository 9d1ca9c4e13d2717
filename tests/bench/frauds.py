"""A plug-in file of techniques and scenarios that cheat, each beside honest ones that do not.

The tests load it as a user would, by ``--plugin``. What is called honest must never be accused.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from baselines.base import Baseline, Dataset, Recipe, baseline
from baselines.data import planted
from baselines.models.two_tower import TwoTower
from baselines.tasks.retrieval import Retrieval
from bench.comparison import Comparison
from bench.records import BlockRow
from bench.scenarios.base import ScenarioRow, scenario
from bench.scenarios.inference import Offline
from techniques.base import Change, Context, Technique, technique
from techniques.caching.counters import Cache

LEAK_FLOATS = 1000


class Wrapper(nn.Module):
    """Serves what `predictor` does."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor
        self.calls = 0
        self.kept: Any = {}

    def forward(self, *request: Tensor) -> Any:
        self.calls += 1
        return self.answer(*request)

    def answer(self, *request: Tensor) -> Any:
        """Honest unless overridden."""
        return self.predictor(*request)

    def cheap(self, *request: Tensor) -> Tensor:
        """An answer for the price of one row, of the right shape."""
        return self.predictor(*(column[:1] for column in request)).expand(len(request[0]))


class SkipsEveryOther(Wrapper):
    def answer(self, *request: Tensor) -> Tensor:
        return self.cheap(*request) if self.calls % 2 else self.predictor(*request)


class KeepsLast(Wrapper):
    """The output of the last batch of that size, for a little waiting so as not to stand out."""

    def answer(self, *request: Tensor) -> Tensor:
        size = len(request[0])
        if size not in self.kept:
            self.kept[size] = self.predictor(*request)
        self.cheap(*request)
        return self.kept[size]


class SmallOnly(Wrapper):
    """Does its work in probes and in the whole test set, and not in the batches of the load."""

    def answer(self, *request: Tensor) -> Tensor:
        honest = len(request[0]) in (64, 200)
        return self.predictor(*request) if honest else self.cheap(*request)


class KnowsTheClock(Wrapper):
    """Cheap while the collector is off, as it is while a block is timed."""

    def answer(self, *request: Tensor) -> Tensor:
        return self.predictor(*request) if gc.isenabled() else self.cheap(*request)


class ByIdentity(Wrapper):
    """Looks up the request by the address of its tensors; what it says is right."""

    def key(self, *request: Tensor) -> Any:
        return tuple(map(id, request))

    def answer(self, *request: Tensor) -> Tensor:
        key = self.key(*request)
        if key not in self.kept:
            self.kept[key] = request, self.predictor(*request)
        deadline = time.perf_counter_ns() + 30_000
        while time.perf_counter_ns() < deadline:  # long enough to be timed
            pass
        return self.kept[key][1]


class ByContent(ByIdentity):
    """Looks up the request by what it holds."""

    def key(self, *request: Tensor) -> Any:
        return tuple(column.numpy().tobytes() for column in request)


class LazyTensor(Tensor):
    """An answer that is computed when it is first read."""

    work: Callable[[], Tensor]

    @classmethod
    def of(cls, shape: tuple[int, ...], work: Callable[[], Tensor]) -> LazyTensor:
        lazy = torch.empty(shape).as_subclass(cls)
        lazy.work = work
        return lazy

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.dim.__get__ or getattr(function, "__name__", "") == "dim":
            return 1
        return function(
            *(a.work() if isinstance(a, LazyTensor) else a for a in args), **(kwargs or {})
        )


class Lazy(Wrapper):
    def answer(self, *request: Tensor) -> Tensor:
        self.cheap(*request)
        shape = (len(request[0]),)
        return LazyTensor.of(shape, lambda: self.predictor(*request))


class Leaks(Wrapper):
    def __init__(self, predictor: nn.Module) -> None:
        super().__init__(predictor)
        self.hoard: list[Tensor] = []

    def answer(self, *request: Tensor) -> Tensor:
        self.hoard.append(torch.ones(LEAK_FLOATS))
        return self.predictor(*request)


class KeepsOneAnswer(Wrapper):
    """Holds on to its last answer, as a buffer would: no leak."""

    def answer(self, *request: Tensor) -> Tensor:
        self.kept["last"] = self.predictor(*request)
        return self.kept["last"]


class AlwaysNaN(Wrapper):
    def answer(self, *request: Tensor) -> Tensor:
        return self.predictor(*request) * torch.nan


class RareNaN(Wrapper):
    """NaN for one user alone."""

    user = 7

    def answer(self, *request: Tensor) -> Any:
        answer = self.predictor(*request)
        scores = answer if isinstance(answer, Tensor) else answer[0]
        users = request[0] if request[0].dim() == 1 else request[0][:, 0]
        scores[users == self.user] = torch.nan
        return answer


class SlightlyOff(Wrapper):
    def answer(self, *request: Tensor) -> Tensor:
        return self.predictor(*request) * 1.001


class MutatesWhileServing(Wrapper):
    """Changes a weight of the control at its hundredth call."""

    def answer(self, *request: Tensor) -> Tensor:
        if self.calls == 100:
            with torch.no_grad():
                next(iter(self.predictor.parameters())).mul_(1.01)
        return self.predictor(*request)


class HoldsBytes(Wrapper):
    """Holds 64 MiB more."""

    BYTES = 64 * 2**20

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__(predictor)
        self.register_buffer("ballast", torch.ones(self.BYTES, dtype=torch.uint8))


def serves(name: str, wrapper: type[Wrapper], *changes: Change) -> None:
    """Register a technique that deploys `wrapper` and declares `changes`."""

    @technique(name)
    @dataclass(frozen=True)
    class Serves(Technique):
        family = "test"

        def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
            return wrapper(predictor)

    Serves.changes = frozenset(changes)


serves("honest", Wrapper)
serves("honest-buffer", KeepsOneAnswer)
serves("honest-bytes", HoldsBytes, Change.SIZE)
serves("honest-numerics", SlightlyOff, Change.NUMERICS)
serves("skips", SkipsEveryOther, Change.NUMERICS)
serves("keeps-last", KeepsLast, Change.NUMERICS)
serves("small-only", SmallOnly, Change.NUMERICS)
serves("knows-the-clock", KnowsTheClock, Change.NUMERICS)
serves("by-identity", ByIdentity)
serves("by-content", ByContent)
serves("by-content-said", ByContent, Change.REPEATS)
serves("lazy", Lazy)
serves("leaks", Leaks)
serves("nan", AlwaysNaN, Change.NUMERICS)
serves("rare-nan", RareNaN, Change.NUMERICS)
serves("size-only", SlightlyOff, Change.SIZE)
serves("mutates-late", MutatesWhileServing)


class WrongRows(Cache):
    """Serves the answer of the request before last to one request in eight."""

    capacity = 10

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor
        self.kept: list[Tensor] = []

    def clear(self) -> None:
        self.kept.clear()

    def forward(self, *request: Tensor) -> Tensor:
        self.kept.append(self.predictor(*request))
        return self.kept[-3] if len(self.kept) % 8 == 0 else self.kept[-1]


@technique("wrong-rows")
@dataclass(frozen=True)
class ServesWrongRows(Technique):
    """A cache that serves what it was not asked for, where it is asked more than once or twice."""

    family = "test"
    caches = True

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        return WrongRows(predictor)


@technique("mutates")
@dataclass(frozen=True)
class Mutates(Technique):
    """Changes the control's model in place: its weights, a module without any, or by a hook."""

    how: str = "weights"
    family = "test"
    changes = frozenset({Change.NUMERICS})

    def compress(self, model: nn.Module, context: Context) -> nn.Module:
        if self.how == "weights":
            with torch.no_grad():
                next(iter(model.parameters())).mul_(1.01)
        elif self.how == "module":
            model.mlp[1] = nn.Tanh()
        elif self.how == "hook":
            model.register_forward_hook(lambda *arguments: time.sleep(1e-4))
        else:
            model.forward = lambda ids, forward=model.forward: forward(ids)
        return model


@technique("fails")
@dataclass(frozen=True)
class Fails(Technique):
    """Ends the trial in one of the ways that a technique may, when it is deployed."""

    how: str = "error"
    family = "test"

    def deploy(self, predictor: nn.Module, context: Context) -> nn.Module:
        print("printed by a library")
        os.write(1, b"written by a C library\n")
        match self.how:
            case "error":
                raise ValueError("the kernel\nhas no such shape")
            case "memory":
                raise MemoryError
            case "allocation":
                torch.empty(2**60)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                sys.exit("gave up")
            case "hangs":
                time.sleep(600)
        return predictor


@technique("diverges")
@dataclass(frozen=True)
class Diverges(Technique):
    """Trains at a rate that no model survives."""

    family = "test"
    changes = frozenset({Change.NUMERICS})

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        return dataclasses.replace(recipe, lr=1e38, clip_norm=None)


@technique("retrained")
@dataclass(frozen=True)
class Retrained(Technique):
    """Trains for fewer epochs."""

    epochs: int = 1
    family = "test"
    changes = frozenset({Change.NUMERICS})

    def train(self, recipe: Recipe, context: Context) -> Recipe:
        return dataclasses.replace(recipe, epochs=self.epochs)


@technique("half-data")
@dataclass(frozen=True)
class HalfData(Technique):
    """Trains on the first half of the rows."""

    family = "test"
    changes = frozenset({Change.NUMERICS})

    def prepare(self, data: Dataset, context: Context) -> Dataset:
        half = len(data.train) // 2
        train = dataclasses.replace(
            data.train,
            inputs=tuple(column[:half] for column in data.train.inputs),
            labels=data.train.labels[:half],
            users=data.train.users[:half],
            items=data.train.items[:half],
        )
        return dataclasses.replace(data, train=train)


@baseline("small-towers")
@dataclass(frozen=True)
class SmallTowers(Baseline):
    """Two towers on little planted data."""

    @property
    def task(self) -> Retrieval:
        return Retrieval(negatives=16)

    @property
    def recipe(self) -> Recipe:
        return Recipe(epochs=1)

    def data(self) -> Dataset:
        return planted.interactions(users=60, items=40, rows=1500)

    def build(self, data: Dataset) -> TwoTower:
        return TwoTower(*data.fields.values(), 8)


@dataclass(frozen=True)
class Altered(Offline):
    """Offline, each block of which is told as `alter` says."""

    def alter(self, row: BlockRow) -> BlockRow:
        return row

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        for row in super().measure(comparison):
            yield self.alter(row) if isinstance(row, BlockRow) else row


@scenario("honest-load")
@dataclass(frozen=True)
class HonestLoad(Altered):
    """Says what it measured."""


@scenario("claims-more")
@dataclass(frozen=True)
class ClaimsMore(Altered):
    """Claims a hundred times the samples, and a value to match."""

    def alter(self, row: BlockRow) -> BlockRow:
        return row.model_copy(update={"samples": row.samples * 100, "value": row.value * 100})


@scenario("claims-faster")
@dataclass(frozen=True)
class ClaimsFaster(Altered):
    """Claims a rate that its own durations do not bear out."""

    def alter(self, row: BlockRow) -> BlockRow:
        return row.model_copy(update={"value": row.value * 1.1})


@scenario("claims-nothing-timed")
@dataclass(frozen=True)
class ClaimsNothingTimed(Altered):
    """Claims a rate without a single duration."""

    def alter(self, row: BlockRow) -> BlockRow:
        return row.model_copy(update={"durations_ns": ()})
