"""What every registered technique must hold to, on every registered baseline that it applies to.

A new one is tested because it is registered. The fast loop takes one baseline of each kind of
model; the others are slow tests, and techniques that compile are tested on those few alone.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from baselines.asynchronous import make_trainer
from baselines.base import BASELINES, Baseline, Batch, Dataset, Recipe
from baselines.parallel import Parallel
from baselines.registry import format_spec
from baselines.steps import with_last
from bench.checks import TOLERANCE, differs
from techniques.base import TECHNIQUES, Change, Context, Technique
from techniques.caching.counters import caches
from techniques.sizes import deployed_bytes

COMPILING = {  # takes seconds a model: tested on these baselines alone
    "compile": {"dcnv2", "two-tower", "sasrec"},
    "aot-inductor": {"dcnv2"},
    "onnxruntime": {"dcnv2", "sasrec"},
    "onnxruntime-int8": {"dcnv2", "two-tower"},
    "torchscript-freeze": {"dcnv2", "two-tower", "sasrec"},
    "async-ps": {"dcnv2"},  # starts processes
}
NORMED = "dcnv2(batch_norm=true)"
FEW = {"dcnv2", NORMED, "two-tower", "sasrec"}
ALL = [*BASELINES.names(), NORMED]
SMALL = {"dataset": "planted(rows=2000, ids=300)", "length": 50}
CPU = torch.device("cpu")
TRAINING = {"prepare", "build", "train"}


def shown_on(name: str) -> set[str]:
    """The baselines that a technique is tested on: a few where it costs seconds, or where it leaves
    what is served alone or cannot run on a CPU."""
    cls = TECHNIQUES.get(name)
    few = set(cls().stages) <= TRAINING or cls.requires.devices == {"cuda"}
    return COMPILING.get(name, FEW if few else set(ALL))


@dataclasses.dataclass(frozen=True)
class Served:
    """A baseline on small data, its model as if trained, and its control."""

    baseline: Baseline
    data: Dataset
    model: nn.Module
    context: Context
    requests: list[Batch]

    def predictor(self, *stack: Technique) -> nn.Module:
        """What `stack` serves."""
        model = self.model
        for technique in stack:
            model = technique.compress(model, self.context)
        predictor = self.baseline.task.predictor(model, self.data).eval()
        for technique in stack:
            predictor = technique.deploy(predictor, self.context)
        return predictor

    def answers(self, predictor: nn.Module) -> list[tuple[Tensor, ...]]:
        """Its answers to all requests."""
        with torch.inference_mode():
            given = [predictor(*batch) for batch in self.requests]
        return [(a,) if isinstance(a, Tensor) else a for a in given]


@cache
def served(name: str) -> Served:
    baseline: Any = BASELINES.make(name)
    known = {field.name for field in dataclasses.fields(baseline)}
    small = {key: value for key, value in SMALL.items() if key in known}
    baseline = dataclasses.replace(baseline, **small)
    data = baseline.data()
    torch.manual_seed(0)
    model = baseline.build(data).eval()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.3)
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    task = baseline.task
    requests = [task.requests(data, size, 1, size)[0] for size in (64, 1, 7)]
    context = Context(task.name, CPU, 0, tuple(requests), data.train)
    return Served(baseline, data, model, context, requests)


def reason_against(technique: Technique, on: Served) -> str | None:
    """Why it does not apply there."""
    return technique.reason_against(on.model, on.baseline.task.name, "cpu")


# Only pairs that apply, which takes a model to be known: one of each baseline is built here.
PAIRS = [
    pytest.param(
        (t, b),
        marks=[pytest.mark.slow] if t in COMPILING or b not in FEW else [],
        id=f"{t}-{b}",
    )
    for t in TECHNIQUES.names()
    for b in ALL
    if b in shown_on(t) and not reason_against(TECHNIQUES.make(t), served(b))
]
TRAINED = [
    case
    for case in PAIRS
    if TRAINING & set(TECHNIQUES.make(case.values[0][0]).stages)
    and served(case.values[0][1]).baseline.recipe.epochs  # 0: complete when built
]


class Case:
    """A technique on a baseline to which it applies: served once, for checks that only look.

    before: the state of the control's model and its answers, before the technique was applied.
    """

    def __init__(self, technique: str, baseline: str) -> None:
        self.technique, self.on = TECHNIQUES.make(technique), served(baseline)
        self.control = self.on.predictor()
        self.before = copy.deepcopy(self.on.model.state_dict()), self.on.answers(self.control)
        self.predictor = self.on.predictor(self.technique)
        self.answers = self.on.answers(self.predictor)


@pytest.fixture(scope="module", params=PAIRS)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    yield Case(*request.param)
    if request.param[0] in COMPILING:  # a compiler is loaded once, and searched in no collection
        gc.collect()
        gc.freeze()


def test_control_is_left_as_it_was(case: Case) -> None:
    on, (state, answers) = case.on, case.before
    for name, tensor in on.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    for now, then in zip(on.answers(case.control), answers, strict=True):
        assert all(map(torch.equal, now, then))
    for module in on.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module.training
    assert all(p.requires_grad and p.grad is None for p in on.model.parameters())


def test_answers_are_finite_and_shaped_as_the_controls(case: Case) -> None:
    for control, treatment in zip(case.before[1], case.answers, strict=True):
        assert [(a.shape, a.dtype) for a in treatment] == [(a.shape, a.dtype) for a in control]
        assert all(torch.isfinite(a).all() for a in treatment)


def test_declared_changes_are_those_observed(case: Case) -> None:
    """NUMERICS by any bit where it is declared, and by the engine's own tolerance where it is not,
    so that compiled code may differ in its last bits."""
    assert case.technique.caches == bool(caches(case.predictor))
    tolerance = 0.0 if Change.NUMERICS in case.technique.changes else TOLERANCE
    pairs = zip(case.before[1], case.answers, strict=True)
    observed = {
        Change.NUMERICS: any(differs(a[0], b[0], tolerance) for a, b in pairs),
        Change.SIZE: deployed_bytes(case.control) != deployed_bytes(case.predictor),
        Change.REPEATS: gains_by_repetition(case.on, case.predictor),
    }
    assert {change for change, seen in observed.items() if seen} == case.technique.changes


def gains_by_repetition(on: Served, predictor: nn.Module) -> bool:
    """Whether its caches, where it has any, hold more of the requests the second time."""
    hits = []
    for held in caches(predictor):
        held.clear()
    for _ in range(2):
        on.answers(predictor)
        hits.append(sum(held.counts.hits for held in caches(predictor)))
    return hits[1] - hits[0] > hits[0]


def test_a_second_one_answers_alike_and_leaves_nothing_behind(case: Case) -> None:
    """The seed is the same. Pools that live as long as the process were started by the first."""
    others = children()
    state, threads = process_state(), threading.active_count()
    predictor = case.on.predictor(case.technique)
    for again, first in zip(case.on.answers(predictor), case.answers, strict=True):
        assert all(map(torch.equal, again, first))
    gone = weakref.ref(predictor)

    del predictor
    gc.collect()

    assert gone() is None
    assert process_state() == state
    assert threading.active_count() == threads
    assert children() <= others


def children() -> set[psutil.Process]:
    """The processes that this one has started, and theirs."""
    return set(psutil.Process().children(recursive=True))


def process_state() -> dict[str, object]:
    """What a technique could change for everything else in the process."""
    return {
        "engine": torch.backends.quantized.engine,
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "matmul": torch.get_float32_matmul_precision(),
        "random": torch.random.get_rng_state().tolist(),
    }


@pytest.mark.parametrize("names", TRAINED)
def test_trains_with_a_finite_float32_loss(names: tuple[str, str]) -> None:
    technique, on = TECHNIQUES.make(names[0]), served(names[1])
    recipe = on.baseline.recipe
    before = copy.copy(recipe)
    model = technique.build(copy.deepcopy(on.model), on.context)
    changed = technique.train(recipe, on.context)
    with ranks_of_one(changed.parallel) as parallel:
        assert_trains(on, model, dataclasses.replace(changed, parallel=parallel))
    assert recipe == before


def assert_trains(on: Served, model: nn.Module, recipe: Recipe) -> None:
    """Two steps change weights that stay float32. What trains is gone when this returns."""
    trainer = make_trainer(model, on.baseline.task, recipe, CPU, seed=0)
    trained = trainer.optimisers[0].param_groups[0]["params"][0]
    weights = trained.detach().clone()
    for batch, last in with_last(itertools.islice(trainer.batches(on.data), 2)):
        loss = trainer.step(batch, last)
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
    trainer.close()
    assert not torch.equal(weights, trained)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@contextmanager
def ranks_of_one(parallel: Parallel | None) -> Iterator[Parallel | None]:
    """What is parallel, in a process group of this process alone.

    The group must outlive DDP's reducer: were it the last to hold the group, it would join the
    group's threads with the interpreter's lock, for which they may wait.
    """
    if parallel is None:
        yield None
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            yield dataclasses.replace(parallel, ranks=1)
        finally:
            gc.collect()
            dist.destroy_process_group()


@pytest.mark.parametrize("name", TECHNIQUES.names())
def test_parameters_round_trip_through_the_spec(name: str) -> None:
    default = TECHNIQUES.make(name)
    assert format_spec(default) == name
    for field in dataclasses.fields(default):
        value = getattr(default, field.name)
        changed = dataclasses.replace(
            default, **{field.name: (value or 1) / 2 if isinstance(value, float) else value + 1}
        )
        assert TECHNIQUES.make(format_spec(changed)) == changed != default


@pytest.mark.parametrize("name", TECHNIQUES.names())
def test_says_what_it_is_and_what_it_changes(name: str) -> None:
    cls = TECHNIQUES.get(name)
    assert "Source: " in (cls.__doc__ or "")
    assert cls.family
    assert cls.changes <= set(Change)
    assert cls().stages


@pytest.mark.parametrize("name", TECHNIQUES.names())
def test_applies_to_a_registered_baseline(name: str) -> None:
    technique, reasons = TECHNIQUES.make(name), []
    device = min(technique.requires.devices, default="cpu")
    for on in map(served, [*sorted(FEW), *ALL]):
        reasons.append(technique.reason_against(on.model, on.baseline.task.name, device))
        if reasons[-1] is None:
            return
    pytest.fail(f"{name} applies to none: {reasons}")
