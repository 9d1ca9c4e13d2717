"""Fine-tuning of what a stack compressed: once, never worse on the valid split, and paid for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from small_trials import DCNV2, FRAUDS, end_of, run
from torch import nn

from baselines.base import Recipe
from baselines.errors import LeanRecError
from baselines.registry import load_plugin
from baselines.trainer import NonFiniteLoss
from bench.checks import fingerprint
from bench.device import get_device
from bench.pipeline import Pipeline
from bench.records import ValueRow
from bench.store import Store
from bench.tuning import Tuner, _with_weights, tuning_recipe

CPU = get_device("cpu")
NARROW = "prune-structured(fine_tune=1)"
SASREC = 'sasrec(dataset="planted(rows=2000, ids=50)", length=8, embedding_dim=8, epochs=1)'


@pytest.fixture(autouse=True)
def _plugin() -> None:
    load_plugin(FRAUDS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is trained once for all tests here."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def store(tmp_path: Path, shared: Path) -> Store:
    """A store in which nothing is tuned yet."""
    for kind in ("data", "trained"):
        (shared / kind).mkdir(exist_ok=True)
        (tmp_path / kind).symlink_to(shared / kind)
    return Store(tmp_path)


def pipeline(store: Store, stack: str, baseline: str = DCNV2, seed: int = 0) -> Pipeline:
    return Pipeline.from_specs(baseline, stack, CPU, seed, store)


def tuned(store: Store) -> list[Path]:
    """The artefacts of fine-tuning, oldest first."""
    found = (store.root / "tuned").glob("*/tuning.json")
    return [file.parent for file in sorted(found, key=lambda file: file.stat().st_mtime_ns)]


def valid(whole: Pipeline, model: nn.Module) -> float:
    """The primary metric of `model` on the valid split."""
    task, data = whole.baseline.task, whole.data
    with torch.inference_mode():
        predictor = task.predictor(model, data).eval()
        return task.metrics[0](task.score(predictor, data, data.valid, CPU.torch_device))


def test_what_one_process_tunes_others_serve_and_count_its_seconds(store: Store) -> None:
    ahead = pipeline(store, NARROW)
    ahead.make_ahead()
    (folder,) = tuned(store)
    spent = json.loads((folder / "tuning.json").read_text())["seconds"]
    model = ahead.trained_model()
    first, second = (pipeline(store, NARROW).serve(model) for _ in range(2))
    assert tuned(store) == [folder]
    assert fingerprint(first[0]) == fingerprint(second[0])
    assert first[1] == second[1] == spent > 0


def test_what_is_tuned_now_is_not_counted_as_spent_before(store: Store) -> None:
    fresh = pipeline(store, NARROW)
    assert fresh.serve(fresh.trained_model())[1] == 0
    assert len(tuned(store)) == 1


def test_a_stack_that_does_not_tune_makes_nothing_ahead_but_the_weights(store: Store) -> None:
    pipeline(store, "prune-structured+int8-linear").make_ahead()
    assert not (store.root / "tuned").exists()


def test_techniques_that_come_later_share_what_was_tuned(store: Store) -> None:
    for stack in (NARROW, f"{NARROW}+int8-embedding", f"honest+{NARROW}+size-only"):
        pipeline(store, stack).make_ahead()
    assert len(tuned(store)) == 1


@pytest.mark.parametrize(
    ("stack", "baseline", "seed"),
    [
        ("prune-structured(fine_tune=2)", DCNV2, 0),
        ("prune-structured(ratio=0.25, fine_tune=1)", DCNV2, 0),
        (f"prune-unstructured+{NARROW}", DCNV2, 0),
        (f"retrained+{NARROW}", DCNV2, 0),
        (NARROW, DCNV2, 1),
        (NARROW, DCNV2.replace("32", "16"), 0),
    ],
)
def test_what_a_tuned_model_depends_on(store: Store, stack: str, baseline: str, seed: int) -> None:
    pipeline(store, NARROW).make_ahead()
    pipeline(store, stack, baseline, seed).make_ahead()
    assert len(tuned(store)) == 2


def test_each_round_and_each_technique_tunes_its_own(store: Store) -> None:
    stack = "prune-unstructured(fine_tune=1, rounds=2)+prune-structured(fine_tune=1)"
    pipeline(store, stack).make_ahead()
    assert len(tuned(store)) == 3


@pytest.mark.parametrize(
    ("baseline", "stack"),
    [
        (DCNV2, "prune-structured(fine_tune=1)"),
        (DCNV2, "prune-unstructured(fine_tune=1)"),
        (DCNV2.replace("cross_layers=1", "cross_layers=2"), "drop-layers(fine_tune=1)"),
        pytest.param(SASREC, "prune-structured(fine_tune=1)", marks=pytest.mark.slow),
        pytest.param(SASREC, "drop-layers(fine_tune=1)", marks=pytest.mark.slow),
    ],
)
def test_the_shape_is_the_untuned_ones_and_the_control_is_left_alone(
    store: Store, baseline: str, stack: str
) -> None:
    whole = pipeline(store, stack, baseline)
    model = whole.trained_model()
    before = fingerprint(model)
    after = whole.predictor(model).state_dict()
    untuned = pipeline(store, stack.partition("(")[0], baseline).predictor(model).state_dict()
    assert fingerprint(model) == before
    assert {name: (t.shape, t.dtype) for name, t in after.items()} == {
        name: (t.shape, t.dtype) for name, t in untuned.items()
    }
    own = {tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel()}
    assert not own & {tensor.data_ptr() for tensor in after.values() if tensor.numel()}


def tuner(whole: Pipeline, recipe: Recipe) -> Tuner:
    return Tuner(whole.store, lambda: {"recipe": str(recipe)}, whole.trainer, recipe, whole.data)


@pytest.mark.parametrize("baseline", [DCNV2, "small-towers"])
def test_the_best_epoch_is_kept(store: Store, baseline: str) -> None:
    whole = pipeline(store, "control", baseline)
    model = whole.fresh_model(CPU.torch_device).eval()
    better = tuner(whole, whole.recipe)(model, 3)
    (folder,) = tuned(store)
    told = json.loads((folder / "tuning.json").read_text())
    assert len(told["valid"]) == 4
    assert told["valid"][0] == pytest.approx(valid(whole, model))
    assert valid(whole, better) == pytest.approx(max(told["valid"]))
    assert max(told["valid"]) > told["valid"][0]
    assert not better.training


def test_a_model_that_only_gets_worse_stays_as_it_was(store: Store) -> None:
    whole = pipeline(store, "control")
    model = whole.trained_model()
    spoiling = dataclasses.replace(whole.recipe, lr=20.0, clip_norm=None)
    same = tuner(whole, spoiling)(model, 1)
    assert fingerprint(same) == fingerprint(model)
    assert same is not model


def test_no_epochs_give_the_model_itself(store: Store) -> None:
    whole = pipeline(store, "control")
    model = whole.fresh_model(CPU.torch_device)
    assert tuner(whole, whole.recipe)(model, 0) is model
    assert not (store.root / "tuned").exists()


def test_a_tuning_that_diverges_says_so_and_leaves_nothing(store: Store) -> None:
    whole = pipeline(store, "control")
    model = whole.trained_model()
    with pytest.raises(NonFiniteLoss):
        tuner(whole, dataclasses.replace(whole.recipe, lr=1e38))(model, 1)
    assert not tuned(store)


def test_a_model_without_training_has_none_to_go_on_with(store: Store) -> None:
    whole = pipeline(store, "control")
    with pytest.raises(LeanRecError, match="complete when built"):
        tuner(whole, Recipe(epochs=0))(whole.fresh_model(CPU.torch_device), 1)


def test_the_recipe_is_the_baselines_at_a_tenth_of_its_rates() -> None:
    given = Recipe(
        lr=0.2, own_rates={"encoder": 0.01}, warmup_steps=9, epochs=50, patience=1, batch_size=7
    )
    made = tuning_recipe(given, 4)
    assert (made.lr, made.own_rates["encoder"]) == pytest.approx((0.02, 0.001))
    assert (made.epochs, made.patience, made.warmup_steps, made.batch_size) == (4, 4, 0, 7)


def test_tied_weights_stay_tied_and_others_stay_where_they_are() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    first.register_buffer("fixed", torch.zeros(2), persistent=False)
    model = nn.Sequential(first, second)
    copied = _with_weights(model, {k: v + 1 for k, v in model.state_dict().items()})
    assert copied[0].weight is copied[1].weight
    assert torch.equal(copied[0].weight, first.weight + 1)
    assert copied[0].fixed is first.fixed


def test_preparation_includes_tuning_by_an_earlier_process(store: Store) -> None:
    for mode in ("train", "measure"):
        rows = run(NARROW, "single-stream(batch_sizes=[4])", mode=mode, store=store.root)
        assert end_of(rows).status == "ok"
        for folder in tuned(store):
            told = json.loads((folder / "tuning.json").read_text())
            (folder / "tuning.json").write_text(json.dumps({**told, "seconds": 1000.0}))
    seconds = {row.arm: row.value for row in rows if isinstance(row, ValueRow)}
    assert seconds["control"] < 1000 < seconds["treatment"]


def _auc(whole: Pipeline) -> float:
    task, data = whole.baseline.task, whole.data
    predictor = whole.predictor(whole.trained_model())
    with torch.inference_mode():
        return task.metrics[0](task.score(predictor, data, data.test, CPU.torch_device))


@pytest.mark.slow
def test_fine_tuning_brings_back_quality_that_pruning_took(store: Store) -> None:
    baseline = 'dcnv2(dataset="planted(rows=20000, ids=50)", width=64, depth=2, cross_layers=1)'
    control, pruned, once, gradual = (
        _auc(pipeline(store, stack, baseline, seed=2))
        for stack in (
            "control",
            "prune-unstructured(ratio=0.9)",
            "prune-unstructured(ratio=0.9, fine_tune=3)",
            "prune-unstructured(ratio=0.9, fine_tune=3, rounds=3)",
        )
    )
    assert pruned < control
    assert once > pruned
    assert gradual > pruned
