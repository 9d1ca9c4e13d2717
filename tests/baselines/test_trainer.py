"""The trainer: steps, penalties, clipping, sparse tables, early stopping, divergence, history."""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.base import Batch, Dataset, Direction, QualityMetric, Recipe, Scored, Split
from baselines.data import planted
from baselines.errors import LeanRecError
from baselines.models.dcnv2 import DCNv2
from baselines.tasks.ctr import CTR
from baselines.trainer import Epoch, History, NonFiniteLoss, Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted.ctr(rows=1000, ids=20, fields=3)


def fresh(data: Dataset, **sizes: Any) -> DCNv2:
    torch.manual_seed(0)
    return DCNv2(list(data.fields.values()), **({"embedding_dim": 4, "hidden": (8,)} | sizes))


def trainer_of(model: nn.Module, recipe: Recipe, task: CTR | None = None, seed: int = 0) -> Trainer:
    return Trainer(model, task or CTR(), recipe, CPU, seed)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


class Scripted(QualityMetric):
    """A metric that says what it was told to, one value a call."""

    name = "scripted"

    def __init__(self, values: list[float], direction: Direction = "higher") -> None:
        self.values = iter(values)
        self.direction = direction  # type: ignore[misc]

    def __call__(self, scored: Scored, weight: np.ndarray | None = None) -> float:
        return next(self.values)


class ScriptedTask(CTR):
    """The CTR task with a scripted primary metric."""

    def __init__(self, values: list[float], direction: Direction = "higher") -> None:
        object.__setattr__(self, "script", (Scripted(values, direction),))

    @property
    def metrics(self) -> tuple[QualityMetric, ...]:
        return self.script  # type: ignore[attr-defined,no-any-return]


# Determinism


def test_a_seed_gives_the_same_weights_to_the_bit(data: Dataset) -> None:
    def fit(seed: int, disturb: int) -> tuple[dict[str, Tensor], History]:
        model = fresh(data, dropout=0.5)
        torch.manual_seed(disturb)
        history = trainer_of(model, Recipe(epochs=2, batch_size=64), seed=seed).fit(data)
        return weights_of(model), history

    (first, story), (second, again), (other, _) = fit(1, 5), fit(1, 6), fit(2, 5)
    assert same(first, second)
    assert [e.valid for e in story.epochs] == [e.valid for e in again.epochs]
    assert not same(first, other)


def test_fitting_leaves_the_global_generator_as_found(data: Dataset) -> None:
    model = fresh(data, dropout=0.5)
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    trainer_of(model, Recipe(epochs=1)).fit(data)
    assert torch.equal(torch.rand(3), expected)


def test_epochs_differ_and_follow_the_seed(data: Dataset) -> None:
    def epochs(seed: int) -> list[Tensor]:
        trainer = trainer_of(fresh(data), Recipe(batch_size=64), seed=seed)
        return [torch.cat([ids for ids, _ in trainer.batches(data)]) for _ in range(2)]

    first, second = epochs(0)
    assert not torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip((first, second), epochs(0), strict=True))
    assert not torch.equal(first, epochs(1)[0])


# Steps


def test_a_step_is_adam_on_the_mean_loss_with_the_penalties(data: Dataset) -> None:
    """λ/2·‖E‖² and w/2·‖others‖² added to the loss by hand give the same weights."""
    recipe = Recipe(lr=0.01, embedding_l2=0.3, weight_decay=0.7, clip_norm=None)
    model, by_hand = fresh(data), fresh(data)
    nn.init.normal_(model.embedding.table.weight)
    by_hand.load_state_dict(model.state_dict())
    trainer = trainer_of(model, recipe)
    adam = torch.optim.Adam(by_hand.parameters(), lr=0.01)
    for batch in trainer.batches(data):
        loss = trainer.step(batch)
        expected = functional.binary_cross_entropy_with_logits(by_hand(batch[0]), batch[1])
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert not loss.requires_grad
        for name, parameter in by_hand.named_parameters():
            strength = 0.3 if name == "embedding.table.weight" else 0.7
            expected = expected + strength / 2 * parameter.square().sum()
        adam.zero_grad()
        expected.backward()
        adam.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, by_hand.state_dict()[name], rtol=1e-3, atol=1e-5)


def test_adamw_decays_beside_the_gradient(data: Dataset) -> None:
    recipe = Recipe(
        optimiser="adamw", lr=0.01, betas=(0.8, 0.95), embedding_l2=0.3, weight_decay=0.7,
        clip_norm=None,
    )  # fmt: skip
    model, by_hand = fresh(data), fresh(data)
    nn.init.normal_(model.embedding.table.weight)
    by_hand.load_state_dict(model.state_dict())
    trainer = trainer_of(model, recipe)
    adam = torch.optim.Adam(by_hand.parameters(), lr=0.01, betas=(0.8, 0.95))
    for batch in trainer.batches(data):
        trainer.step(batch)
        adam.zero_grad()
        CTR().loss(by_hand, batch).backward()
        with torch.no_grad():
            for name, parameter in by_hand.named_parameters():
                parameter.mul_(1 - 0.01 * (0.3 if name == "embedding.table.weight" else 0.7))
        adam.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, by_hand.state_dict()[name], rtol=1e-3, atol=1e-5)


def rates(trainer: Trainer) -> list[float]:
    """Filled by each step with the rate it is taken at."""
    seen: list[float] = []
    (adam,) = trainer.optimisers
    adam.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
    return seen


def test_the_rate_rises_linearly_and_then_stays(data: Dataset) -> None:
    trainer = trainer_of(fresh(data), Recipe(lr=0.4, warmup_steps=4, batch_size=100))
    seen = rates(trainer)
    for batch in trainer.batches(data):
        trainer.step(batch)
    assert seen == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4])


def test_an_epoch_that_does_not_improve_lowers_the_rate(data: Dataset) -> None:
    recipe = Recipe(lr=0.1, plateau=0.5, batch_size=800, epochs=9, patience=3, warmup_steps=2)
    values = [0.5, 0.4, 0.6, 0.6, 0.5, 0.4]
    trainer = trainer_of(fresh(data), recipe, ScriptedTask(values))
    seen = rates(trainer)
    assert len(trainer.fit(data).epochs) == 6
    assert seen == pytest.approx([0.05, 0.1, 0.05, 0.05, 0.025, 0.0125])


def test_the_precision_of_matrix_products_is_set_for_training_alone(data: Dataset) -> None:
    seen: list[str] = []

    class Watching(CTR):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            seen.append(torch.get_float32_matmul_precision())
            return super().loss(model, batch)

        def score(self, *args: Any) -> Scored:
            seen.append(torch.get_float32_matmul_precision())
            return super().score(*args)

    recipe = Recipe(matmul_precision="medium", batch_size=800, epochs=1)
    trainer_of(fresh(data), recipe, Watching()).fit(data)
    assert seen == ["medium", "medium"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_precision_comes_back_after_a_failure_too(data: Dataset) -> None:
    class Failing(CTR):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer_of(fresh(data), Recipe(matmul_precision="medium"), Failing()).fit(data)
    assert torch.get_float32_matmul_precision() == "highest"


def gradient_norms(trainer: Trainer) -> list[float]:
    """Filled by each step with the squared norm of what each optimiser was given."""
    squares: list[float] = []

    def note(optimiser: torch.optim.Optimizer, *_: object) -> None:
        for parameter in (p for group in optimiser.param_groups for p in group["params"]):
            grad = (
                parameter.grad.coalesce().values() if parameter.grad.is_sparse else parameter.grad
            )
            squares.append(float(grad.square().sum()))

    for optimiser in trainer.optimisers:
        optimiser.register_step_pre_hook(note)
    return squares


@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_are_clipped_by_their_joint_norm(data: Dataset, sparse: bool) -> None:
    def norm(clip: float | None) -> float:
        model = fresh(data)
        nn.init.normal_(model.embedding.table.weight, std=10)
        trainer = trainer_of(model, Recipe(clip_norm=clip, sparse_embeddings=sparse))
        squares = gradient_norms(trainer)
        trainer.step(next(trainer.batches(data)))
        return sum(squares) ** 0.5

    free = norm(None)
    assert norm(free / 10) == pytest.approx(free / 10, rel=1e-4)
    assert norm(free * 10) == pytest.approx(free, rel=1e-4)


def rows_moved(data: Dataset, sparse: bool) -> tuple[Tensor, Tensor]:
    """Which rows of the table moved in a step on id 3 alone, then in a step on id 7 alone."""
    model = fresh(data)
    nn.init.normal_(model.embedding.table.weight)
    trainer = trainer_of(model, Recipe(sparse_embeddings=sparse))
    moved = []
    for i in (3, 7):
        before = model.embedding.table.weight.detach().clone()
        trainer.step((torch.full((4, 3), i), torch.ones(4)))
        moved.append((model.embedding.table.weight != before).any(1).nonzero().flatten())
    return moved[0], moved[1]


def test_sparse_embeddings_move_only_the_rows_of_the_batch(data: Dataset) -> None:
    first, second = rows_moved(data, sparse=True)
    assert first.tolist() == [3, 23, 43]
    assert second.tolist() == [7, 27, 47]


def test_dense_adam_goes_on_moving_rows_of_earlier_batches(data: Dataset) -> None:
    first, second = rows_moved(data, sparse=False)
    assert first.tolist() == [3, 23, 43]
    assert second.tolist() == [3, 7, 23, 27, 43, 47]


def test_sparse_embeddings_refuse_a_dense_penalty(data: Dataset) -> None:
    with pytest.raises(LeanRecError, match="exclude each other"):
        trainer_of(fresh(data), Recipe(sparse_embeddings=True, embedding_l2=0.1))


def test_frozen_parameters_stay(data: Dataset) -> None:
    model = fresh(data)
    model.embedding.table.requires_grad_(False)
    before = weights_of(model)
    trainer_of(model, Recipe(epochs=1, sparse_embeddings=True)).fit(data)
    assert torch.equal(model.embedding.table.weight, before["embedding.table.weight"])
    assert not torch.equal(model.head.weight, before["head.weight"])


def test_contexts_surround_the_forward_pass_and_the_loss(data: Dataset) -> None:
    seen: list[tuple[bool, torch.dtype]] = []

    class Watching(CTR):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            seen.append((torch.is_autocast_enabled("cpu"), model(*batch[:-1]).dtype))
            return super().loss(model, batch)

    def bf16() -> AbstractContextManager[object]:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    trainer = trainer_of(fresh(data), Recipe(contexts=(bf16,)), Watching())
    loss = trainer.step(next(trainer.batches(data)))
    assert seen == [(True, torch.bfloat16)]
    assert loss.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_wraps_run_the_forward_pass_over_the_models_own_parameters(data: Dataset) -> None:
    order: list[str] = []

    class Wrapped(nn.Module):
        def __init__(self, inner: nn.Module, label: str) -> None:
            super().__init__()
            self.inner, self.label = inner, label

        def forward(self, *inputs: Tensor) -> Tensor:
            order.append(self.label)
            return self.inner(*inputs)

    model = fresh(data)
    before = weights_of(model)
    wraps: tuple[Callable[[nn.Module], nn.Module], ...] = (
        lambda m: Wrapped(m, "inner"),
        lambda m: Wrapped(m, "outer"),
    )
    trainer = trainer_of(model, Recipe(wraps=wraps))
    trainer.step(next(trainer.batches(data)))
    assert order == ["outer", "inner"]
    assert set(model.state_dict()) == set(before)
    assert not torch.equal(model.head.weight, before["head.weight"])


# Fitting


@pytest.mark.parametrize("direction", ["higher", "lower"])
@pytest.mark.parametrize(
    ("values", "patience", "best", "run"),
    [
        ([0.5, 0.7, 0.6, 0.6, 0.9], 2, 1, 4),
        ([0.5, 0.7, 0.6, 0.8, 0.7], 2, 3, 5),
        ([0.5, 0.4, 0.9, 0.9, 0.9], 1, 0, 2),
        ([0.5, 0.5, 0.5, 0.5, 0.6], 3, 0, 4),
    ],
)
def test_training_stops_early_and_keeps_the_best_weights(
    data: Dataset, direction: Direction, values: list[float], patience: int, best: int, run: int
) -> None:
    model = fresh(data)
    said = values if direction == "higher" else [-v for v in values]
    kept: list[dict[str, Tensor]] = []
    trainer = trainer_of(model, Recipe(epochs=5, patience=patience), ScriptedTask(said, direction))
    history = trainer.fit(data, lambda epoch: kept.append(weights_of(model)))
    assert (history.best, len(history.epochs)) == (best, run)
    assert (history.metric, history.direction) == ("scripted", direction)
    assert [e.valid for e in history.epochs] == said[:run]
    assert [e.samples_seen for e in history.epochs] == [800 * (k + 1) for k in range(run)]
    assert same(weights_of(model), kept[best])
    assert not same(kept[best], kept[run - 1]) or best == run - 1
    assert not model.training


def test_half_precision_transposed_and_buffered_tensors_are_restored(data: Dataset) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 3).t())
            self.bias = nn.Parameter(torch.randn((), dtype=torch.bfloat16))
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
            self.register_buffer("empty", torch.empty(0))

        def forward(self, ids: Tensor) -> Tensor:
            self.steps += self.training
            return (ids.float() @ self.weight).sum(1) + self.bias

    torch.manual_seed(0)
    model = Odd()
    assert not model.weight.is_contiguous()
    kept: list[dict[str, Tensor]] = []
    trainer = trainer_of(model, Recipe(lr=0.1, epochs=3, patience=9), ScriptedTask([2, 1, 1]))
    trainer.fit(data, lambda epoch: kept.append(weights_of(model)))
    assert same(weights_of(model), kept[0])
    assert not same(kept[0], kept[2])


def test_training_improves_on_the_base_rate(data: Dataset) -> None:
    bigger = planted.ctr(rows=20_000, ids=20, fields=3)
    model = fresh(bigger)
    history = trainer_of(model, Recipe(lr=0.01, batch_size=256, epochs=5)).fit(bigger)
    scored = CTR().score(CTR().predictor(model, bigger), bigger, bigger.test, CPU)
    auc = CTR().metrics[0]
    assert 0.9 * bigger.best["auc"] < auc(scored) <= bigger.best["auc"] + 0.01
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss < 0.7


def test_a_model_that_is_complete_when_built_is_validated_once(data: Dataset) -> None:
    class Complete(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return ids.sum(1).float()

    heard: list[Epoch] = []
    history = trainer_of(Complete(), Recipe(epochs=0)).fit(data, heard.append)
    assert history.epochs == (Epoch(0, 0.0, history.epochs[0].valid, 0.0),)
    assert heard == list(history.epochs)
    assert 0 < history.epochs[0].valid < 1
    assert history.best == 0


def test_no_epochs_leave_a_trainable_model_as_it_was(data: Dataset) -> None:
    model = fresh(data)
    before = weights_of(model)
    trainer_of(model, Recipe(epochs=0)).fit(data)
    assert same(weights_of(model), before)


# Failure


def replaced(data: Dataset, **splits: Split) -> Dataset:
    return dataclasses.replace(data, **splits)


def test_a_loss_that_is_not_finite_is_reported_with_its_place(data: Dataset) -> None:
    labels = data.train.labels.clone()
    labels[5] = torch.nan
    broken = replaced(data, train=dataclasses.replace(data.train, labels=labels))
    with pytest.raises(NonFiniteLoss, match=r"by step 2 of epoch 1 \(lr 0.05, batch 500\)"):
        trainer_of(fresh(data), Recipe(lr=0.05, batch_size=500)).fit(broken)


def test_divergence_is_seen_long_before_the_end_of_an_epoch(data: Dataset) -> None:
    labels = torch.full_like(data.train.labels, torch.nan)
    broken = replaced(data, train=dataclasses.replace(data.train, labels=labels))
    with pytest.raises(NonFiniteLoss, match="by step 100 of epoch 1"):
        trainer_of(fresh(data), Recipe(batch_size=1)).fit(broken)


def test_weights_that_break_in_the_last_step_are_divergence_too(data: Dataset) -> None:
    with pytest.raises(NonFiniteLoss, match="epoch 1"):
        trainer_of(fresh(data), Recipe(lr=1e38, batch_size=800, epochs=1)).fit(data)


def test_a_valid_split_of_one_class_is_said_to_be_useless(data: Dataset) -> None:
    labels = torch.ones_like(data.valid.labels)
    one = replaced(data, valid=dataclasses.replace(data.valid, labels=labels))
    with pytest.raises(LeanRecError, match="auc is not defined on the valid split"):
        trainer_of(fresh(data), Recipe()).fit(one)


@pytest.mark.parametrize("name", ["train", "valid"])
def test_an_empty_split_is_said_to_be_empty(data: Dataset, name: str) -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    empty = Split((nothing.reshape(0, 3),), torch.empty(0), nothing, nothing)
    with pytest.raises(LeanRecError, match=f"{name} split of planted-ctr is empty"):
        trainer_of(fresh(data), Recipe()).fit(replaced(data, **{name: empty}))


def test_a_full_disk_is_said_to_be_full(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, content: object, /) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full("/dev/null", "w+"))
    with pytest.raises(LeanRecError, match=r"No space left on device.*TMPDIR"):
        trainer_of(fresh(data), Recipe(epochs=1)).fit(data)


# History


def test_history_says_when_a_target_was_reached() -> None:
    def story(direction: Direction, values: list[float]) -> History:
        epochs = [Epoch(100 * (k + 1), 0.5, v, 1.0) for k, v in enumerate(values)]
        return History("m", direction, epochs, 0)

    rising = story("higher", [0.5, 0.7, 0.6, 0.8])
    assert rising.samples_to(0.4) == 100
    assert rising.samples_to(0.7) == 200
    assert rising.samples_to(0.75) == 400
    assert rising.samples_to(0.9) is None
    assert story("lower", [0.5, 0.3, 0.2]).samples_to(0.3) == 200


def test_history_survives_json(data: Dataset) -> None:
    history = trainer_of(fresh(data), Recipe(epochs=2)).fit(data)
    content = json.loads(json.dumps(dataclasses.asdict(history)))
    epochs = tuple(Epoch(**epoch) for epoch in content.pop("epochs"))
    assert History(epochs=epochs, **content) == history
