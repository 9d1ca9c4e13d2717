"""Sequence models: against loops in numpy, and what all of them must hold to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.models.bert4rec import BERT4Rec
from baselines.models.gru4rec import GRU4Rec
from baselines.models.hstu import HSTU
from baselines.models.sasrec import SASRec

ITEMS, LENGTH, DIM = 11, 7, 8
MADE = {
    "sasrec": lambda: SASRec(ITEMS, LENGTH, DIM, 2, 2, 0.1),
    "hstu": lambda: HSTU(ITEMS, LENGTH, DIM, 2, 2, 0.1),
    "bert4rec": lambda: BERT4Rec(ITEMS, LENGTH, DIM, 2, 2, 0.1),
    "gru4rec": lambda: GRU4Rec(ITEMS, DIM, 6, 1, 0.1),
}
CAUSAL = ["sasrec", "hstu", "gru4rec"]


def model_of(name: str) -> Any:
    """Every weight drawn anew, the padding row too."""
    torch.manual_seed(0)
    model = MADE[name]().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("name", CAUSAL)
def test_the_future_does_not_change_the_past(name: str) -> None:
    model, history = model_of(name), torch.randint(ITEMS, (3, LENGTH))
    other = history.clone()
    other[:, 4:] = (other[:, 4:] + 1) % ITEMS
    before, after = model.encode(history), model.encode(other)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_bert4rec_reads_both_sides() -> None:
    model, history = model_of("bert4rec"), torch.randint(ITEMS, (1, LENGTH))
    other = history.clone()
    other[:, -1] = (other[:, -1] + 1) % ITEMS
    assert not torch.allclose(model.encode(history)[:, 0], model.encode(other)[:, 0])


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("more", [1, 3])
def test_more_padding_gives_the_same_states(name: str, more: int) -> None:
    model, history = model_of(name), torch.randint(ITEMS, (3, 4))
    padded = torch.cat((torch.full((3, more), ITEMS), history), dim=1)
    torch.testing.assert_close(model.encode(padded)[:, more:], model.encode(history))


@pytest.mark.parametrize("name", MADE)
def test_a_history_of_padding_alone_has_finite_states_and_gradients(name: str) -> None:
    model = model_of(name).train()
    states, vectors = model(torch.full((2, 5), ITEMS))
    assert vectors.shape == (ITEMS, DIM)
    (states.sum() + vectors.sum()).backward()
    assert states.isfinite().all()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(grad.isfinite().all() for grad in grads)


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in model.state_dict().items()}


def norm(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    return w[f"{name}.weight"] @ x + w[f"{name}.bias"]


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def inputs(w: dict[str, np.ndarray], history: Tensor) -> list[np.ndarray]:
    last = len(history) - 1
    return [
        w["item.weight"][i] * DIM**0.5 + w["position.weight"][last - place]
        for place, i in enumerate(history.tolist())
    ]


def sasrec_reference(w: dict[str, np.ndarray], history: Tensor, heads: int = 2) -> np.ndarray:
    xs, size = inputs(w, history), DIM // heads
    for b in ("blocks.0", "blocks.1"):
        qkv = [np.split(linear(norm(x, w, f"{b}.norm"), w, f"{b}.qkv"), 3) for x in xs]
        out = []
        for place, x in enumerate(xs):
            read = np.zeros(DIM)
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                logits = [
                    qkv[place][0][part] @ qkv[p][1][part] / np.sqrt(size) for p in range(place + 1)
                ]
                share = np.exp(np.array(logits) - max(logits))
                share /= share.sum()
                read[part] = sum(s * qkv[p][2][part] for p, s in enumerate(share))
            y = x + linear(read, w, f"{b}.out")
            inner = np.maximum(linear(norm(y, w, f"{b}.norm2"), w, f"{b}.feed.0"), 0)
            out.append(y + linear(inner, w, f"{b}.feed.3"))
        xs = out
    return np.stack([norm(x, w, "norm") for x in xs])


def hstu_reference(w: dict[str, np.ndarray], history: Tensor, heads: int = 2) -> np.ndarray:
    xs, size = inputs(w, history), DIM // heads
    for b in ("blocks.0", "blocks.1"):
        uvqk = [np.split(silu(linear(norm(x, w, f"{b}.norm"), w, f"{b}.uvqk")), 4) for x in xs]
        out = []
        for place, x in enumerate(xs):
            read = np.zeros(DIM)
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                for p in range(place + 1):
                    logit = uvqk[place][2][part] @ uvqk[p][3][part]
                    weight = silu(logit + w[f"{b}.bias.weight"][place - p, h]) / LENGTH
                    read[part] += weight * uvqk[p][1][part]
            gated = norm(read, w, f"{b}.norm2") * uvqk[place][0]
            out.append(x + linear(gated, w, f"{b}.out"))
        xs = out
    return np.stack([norm(x, w, "norm") for x in xs])


@pytest.mark.parametrize(
    ("name", "reference"), [("sasrec", sasrec_reference), ("hstu", hstu_reference)]
)
def test_the_forward_pass_is_that_of_plain_loops(
    name: str, reference: Callable[..., np.ndarray]
) -> None:
    model, history = model_of(name), torch.randint(ITEMS, (3, LENGTH))
    with torch.no_grad():
        states = model.encode(history).numpy()
    for row, expected in zip(states, history, strict=True):
        np.testing.assert_allclose(row, reference(weights(model), expected), rtol=1e-3, atol=1e-3)
