"""The click models against their papers' equations written again in numpy, row by row."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.base import BASELINES
from baselines.errors import LeanRecError
from baselines.models.deepfm import DeepFM
from baselines.models.din import DIN
from baselines.models.dlrm import DLRM
from baselines.models.dnn import DNN
from baselines.models.finalmlp import FinalMLP
from baselines.trainer import Trainer

CARDINALITIES, DIM = (5, 3, 7), 4
State = dict[str, np.ndarray]
Reference = Callable[[State, np.ndarray, np.ndarray], float]


def vectors(state: State, name: str, ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The vectors of a row's fields, then those of its numbers, [F + D, dim]."""
    starts = np.r_[0, np.cumsum(CARDINALITIES)]
    looked_up = [state[f"{name}.table.weight"][starts[f] + i] for f, i in enumerate(ids)]
    scaled = [x * w for x, w in zip(numbers, state.get(f"{name}.numbers", ()), strict=False)]
    return np.array([*looked_up, *scaled])


def affine(state: State, name: str, x: np.ndarray) -> np.ndarray:
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def mlp(state: State, name: str, x: np.ndarray) -> np.ndarray:
    """Linear layers, each with ReLU."""
    layers = [k[:-7] for k in state if k.startswith(f"{name}.") and k.endswith("weight")]
    for layer in layers:
        x = np.maximum(affine(state, layer, x), 0)
    return x


def dnn(state: State, ids: np.ndarray, numbers: np.ndarray) -> float:
    x = vectors(state, "embedding", ids, numbers).ravel()
    return float(affine(state, "head", mlp(state, "mlp", x))[0])


def deepfm(state: State, ids: np.ndarray, numbers: np.ndarray) -> float:
    v = vectors(state, "embedding", ids, numbers)
    pairs = sum(a @ b for a, b in combinations(v, 2))
    first = vectors(state, "first_order", ids, numbers).sum()
    return float(first + pairs + affine(state, "head", mlp(state, "mlp", v.ravel()))[0])


def dlrm(state: State, ids: np.ndarray, numbers: np.ndarray) -> float:
    z = mlp(state, "bottom", numbers) if len(numbers) else state["constant"]
    v = [z, *vectors(state, "embedding", ids, numbers[:0])]
    dots = [a @ b for a, b in combinations(v, 2)]
    return float(affine(state, "head", mlp(state, "mlp", np.r_[z, dots]))[0])


def finalmlp(state: State, ids: np.ndarray, numbers: np.ndarray) -> float:
    v = vectors(state, "embedding", ids, numbers)
    streams = []
    for stream, field in enumerate((0, 2)):
        gate = f"gates.{stream}.mlp"
        h = np.maximum(affine(state, f"{gate}.0", v[field]), 0)
        g = 2 / (1 + np.exp(-affine(state, f"{gate}.2", h)))
        streams.append(mlp(state, f"mlp_{stream + 1}", g * v.ravel()))
    a, b = streams
    weight = state["fusion.weight"]
    parts = zip(np.split(a, len(weight)), weight, np.split(b, len(weight)), strict=True)
    bilinear = sum(left @ w @ right for left, w, right in parts)
    return float(bilinear + affine(state, "fusion.linear", np.r_[a, b])[0])


def made(kind: type[nn.Module], numbers: int) -> nn.Module:
    torch.manual_seed(numbers)
    special = {"contexts": (0, 2), "heads": 2} if kind is FinalMLP else {}
    model = kind(CARDINALITIES, DIM, (8, 6), dropout=0.3, numbers=numbers, **special)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def rows(numbers: int, count: int = 9) -> tuple[Tensor, ...]:
    ids = torch.stack([torch.randint(c, (count,)) for c in CARDINALITIES], dim=1)
    return (ids, torch.randn(count, numbers)) if numbers else (ids,)


MODELS = [(DNN, dnn), (DeepFM, deepfm), (DLRM, dlrm), (FinalMLP, finalmlp)]
both = pytest.mark.parametrize("numbers", [0, 2])
every = pytest.mark.parametrize(("kind", "reference"), MODELS)


@both
@every
def test_the_forward_pass_is_the_papers(
    kind: type[nn.Module], reference: Reference, numbers: int
) -> None:
    model, batch = made(kind, numbers), rows(numbers)
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    columns = batch[1].double().numpy() if numbers else np.empty((len(batch[0]), 0))
    expected = [
        reference(state, ids, row) for ids, row in zip(batch[0].numpy(), columns, strict=True)
    ]
    with torch.no_grad():
        np.testing.assert_allclose(model(*batch).numpy(), expected, rtol=1e-4, atol=1e-4)


@both
@every
def test_every_parameter_is_trained(
    kind: type[nn.Module], reference: Reference, numbers: int
) -> None:
    model = made(kind, numbers)
    model(*rows(numbers, 200)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@every
def test_rows_do_not_depend_on_each_other(kind: type[nn.Module], reference: Reference) -> None:
    model, (ids,) = made(kind, 0), rows(0)
    order = torch.randperm(len(ids))
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[order], model(ids[order]))


def din_and_rows(numbers: int) -> tuple[DIN, tuple[Tensor, ...]]:
    """Histories of 5 items of the field of 3, left-padded; the first row has none."""
    torch.manual_seed(numbers)
    model = DIN(CARDINALITIES, DIM, (8, 6), dropout=0.3, numbers=numbers, attention=(5,))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    ids, *columns = rows(numbers, 6)
    history = torch.randint(CARDINALITIES[1], (6, 5))
    history[torch.arange(5) < torch.arange(5, -1, -1)[:, None]] = CARDINALITIES[1]
    return model.eval(), (ids, *columns, history)


def din(state: State, ids: np.ndarray, numbers: np.ndarray, history: np.ndarray) -> float:
    v = vectors(state, "embedding", ids, numbers)
    target, interest = v[1], np.zeros(DIM)
    for item in history[history < CARDINALITIES[1]]:
        h = state["embedding.table.weight"][CARDINALITIES[0] + item]
        units = mlp(state, "attention.mlp", np.r_[h, target, h - target, h * target])
        interest += affine(state, "attention.head", units)[0] * h
    return float(affine(state, "head", mlp(state, "mlp", np.r_[v.ravel(), interest]))[0])


@both
def test_din_weighs_the_history_by_the_target(numbers: int) -> None:
    model, batch = din_and_rows(numbers)
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    columns = batch[1].double().numpy() if numbers else np.empty((6, 0))
    given = zip(batch[0].numpy(), columns, batch[-1].numpy(), strict=True)
    with torch.no_grad():
        found = model(*batch)
    np.testing.assert_allclose(found, [din(state, *row) for row in given], rtol=1e-4, atol=1e-4)


def test_din_sees_neither_padding_nor_the_order_of_the_history() -> None:
    model, (ids, history) = din_and_rows(0)
    padded = nn.functional.pad(history, (3, 0), value=CARDINALITIES[1])
    with torch.no_grad():
        torch.testing.assert_close(model(ids, padded), model(ids, history))
        torch.testing.assert_close(model(ids, history.flip(1)), model(ids, history))
        assert not torch.allclose(model(ids, history.roll(1, 0)), model(ids, history))


def test_every_parameter_of_din_is_trained() -> None:
    model, batch = din_and_rows(2)
    model(*batch).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(LeanRecError, match="heads"):
        FinalMLP(CARDINALITIES, DIM, (8, 7), heads=2)


@pytest.mark.parametrize("name", ["dnn", "deepfm", "dcnv2", "dlrm", "finalmlp", "din"])
def test_a_seed_gives_the_same_weights(name: str) -> None:
    spec = (
        f'{name}(dataset="planted(rows=1000, ids=20)", width=16, dropout=0.2, batch_norm=true, '
        "batch_size=256, epochs=2)"
    )
    baseline = BASELINES.make(spec)
    data = baseline.data()

    def trained() -> dict[str, Tensor]:
        torch.manual_seed(3)
        model = baseline.build(data)
        Trainer(model, baseline.task, baseline.recipe, torch.device("cpu"), 3).fit(data)
        return model.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
