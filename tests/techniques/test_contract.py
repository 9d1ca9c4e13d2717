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
from baselines.base import BASELINES, Baseline, Batch, Dataset
from baselines.parallel import Parallel
from baselines.registry import format_spec
from baselines.steps import with_last
from bench.checks import differs
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
SMALL = {"dataset": "planted(rows=2000, ids=300)"}
CPU = torch.device("cpu")
TRAINING = {"prepare", "build", "train"}


def shown_on(name: str) -> set[str]:
    """The baselines that a technique is tested on: a few where it costs seconds, or where it leaves
    what is served alone or cannot run on a CPU."""
    cls = TECHNIQUES.get(name)
    few = set(cls().stages) <= TRAINING or cls.requires.devices == {"cuda"}
    return COMPILING.get(name, FEW if few else set(ALL))


PAIRS = [
    pytest.param(
        (t, b),
        marks=[pytest.mark.slow] if t in COMPILING or b not in FEW else [],
        id=f"{t}-{b}",
    )
    for t in TECHNIQUES.names()
    for b in ALL
    if b in shown_on(t)
]


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


Case = tuple[Technique, Served]


@pytest.fixture(params=PAIRS)
def case(request: pytest.FixtureRequest) -> Case:
    """A technique, and a baseline to which it applies."""
    technique, on = TECHNIQUES.make(request.param[0]), served(request.param[1])
    reason = technique.reason_against(on.model, on.baseline.task.name, "cpu")
    if reason:
        pytest.skip(f"{technique.name} {reason}")
    return technique, on


def test_control_is_left_as_it_was(case: Case) -> None:
    technique, on = case
    control = on.predictor()
    before = copy.deepcopy(on.model.state_dict()), on.answers(control)

    served_by = on.predictor(technique)
    on.answers(served_by)

    for name, tensor in on.model.state_dict().items():
        assert torch.equal(tensor, before[0][name]), name
    for now, then in zip(on.answers(control), before[1], strict=True):
        assert all(map(torch.equal, now, then))
    for module in on.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module.training
    assert all(p.requires_grad and p.grad is None for p in on.model.parameters())


def test_same_seed_gives_the_same_answers(case: Case) -> None:
    technique, on = case
    first, second = (on.answers(on.predictor(technique)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert all(map(torch.equal, a, b))


def test_answers_are_finite_and_shaped_as_the_controls(case: Case) -> None:
    technique, on = case
    for control, treatment in zip(
        on.answers(on.predictor()), on.answers(on.predictor(technique)), strict=True
    ):
        assert [(a.shape, a.dtype) for a in treatment] == [(a.shape, a.dtype) for a in control]
        assert all(torch.isfinite(a).all() for a in treatment)


def test_declared_changes_are_those_observed(case: Case) -> None:
    """NUMERICS by the engine's own tolerance, so compiled code may differ in its last bits."""
    technique, on = case
    control, treatment = on.predictor(), on.predictor(technique)
    assert technique.caches == bool(caches(treatment))
    pairs = zip(on.answers(control), on.answers(treatment), strict=True)
    observed = {
        Change.NUMERICS: any(differs(a[0], b[0]) for a, b in pairs),
        Change.SIZE: deployed_bytes(control) != deployed_bytes(treatment),
        Change.REPEATS: gains_by_repetition(on, treatment),
    }
    assert {change for change, seen in observed.items() if seen} == technique.changes


def gains_by_repetition(on: Served, predictor: nn.Module) -> bool:
    """Whether its caches, where it has any, hold more of the requests the second time."""
    hits = []
    for held in caches(predictor):
        held.clear()
    for _ in range(2):
        on.answers(predictor)
        hits.append(sum(held.counts.hits for held in caches(predictor)))
    return hits[1] - hits[0] > hits[0]


def test_nothing_is_left_behind(case: Case) -> None:
    technique, on = case
    others = children()  # of tests before this one
    on.answers(on.predictor(technique))  # pools that live as long as the process start here
    state, threads = process_state(), threading.active_count()
    predictor = on.predictor(technique)
    on.answers(predictor)
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


def test_trains_with_a_finite_float32_loss(case: Case) -> None:
    technique, on = case
    if not TRAINING & set(technique.stages):
        pytest.skip(f"{technique.name} leaves training alone")
    recipe = on.baseline.recipe
    if recipe.epochs == 0:
        pytest.skip(f"{on.baseline.name} is complete when built")
    before = copy.copy(recipe)
    model = technique.build(copy.deepcopy(on.model), on.context)
    changed = technique.train(recipe, on.context)
    with ranks_of_one(changed.parallel) as parallel:
        changed = dataclasses.replace(changed, parallel=parallel)
        trainer = make_trainer(model, on.baseline.task, changed, CPU, seed=0)
        trained = trainer.optimisers[0].param_groups[0]["params"][0]
        weights = trained.detach().clone()
        for batch, last in with_last(itertools.islice(trainer.batches(on.data), 2)):
            loss = trainer.step(batch, last)
            assert loss.dtype == torch.float32
            assert torch.isfinite(loss)
        trainer.close()
        assert recipe == before
        assert not torch.equal(weights, trained)
        assert all(p.dtype == torch.float32 for p in model.parameters())


@contextmanager
def ranks_of_one(parallel: Parallel | None) -> Iterator[Parallel | None]:
    """What is parallel, in a process group of this process alone."""
    if parallel is None:
        yield None
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            yield dataclasses.replace(parallel, ranks=1)
        finally:
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
