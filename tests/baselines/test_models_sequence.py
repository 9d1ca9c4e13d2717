"""Sequence models: against loops in numpy, and what all of them must hold to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor, nn

from baselines.models.bert4rec import BERT4Rec
from baselines.models.gru4rec import GRU4Rec
from baselines.models.hstu import HSTU
from baselines.models.sasrec import SASRec
from baselines.tasks.sequence import NextItem

ITEMS, LENGTH, DIM, TEMPERATURE = 11, 7, 8, 0.3
MADE = {
    "sasrec": lambda: SASRec(ITEMS, LENGTH, DIM, 2, 2, 0.1),
    "sasrec by cosine": lambda: SASRec(ITEMS, LENGTH, DIM, 2, 2, 0.1, TEMPERATURE),
    "hstu": lambda: HSTU(ITEMS, LENGTH, DIM, 2, 2, 0.1, TEMPERATURE),
    "bert4rec": lambda: BERT4Rec(ITEMS, LENGTH, DIM, 2, 2, 0.1),
    "gru4rec": lambda: GRU4Rec(ITEMS, DIM, 6, 1, 0.1),
}
CAUSAL = ["sasrec", "sasrec by cosine", "hstu", "gru4rec"]


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
    table = w["item.weight"] if "item.weight" in w else w["item.table.weight"]
    last = len(history) - 1
    return [
        table[i] * DIM**0.5 + w["position.weight"][last - place]
        for place, i in enumerate(history.tolist())
    ]


def gelu(x: np.ndarray) -> np.ndarray:
    return x * special.ndtr(x)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def transformer(
    w: dict[str, np.ndarray], history: Tensor, read_by: Callable[[int], range], act: Callable
) -> np.ndarray:
    """read_by: the places that place l reads."""
    heads = 2
    xs, size = inputs(w, history), DIM // heads
    for b in ("blocks.0", "blocks.1"):
        qkv = [np.split(linear(norm(x, w, f"{b}.norm"), w, f"{b}.qkv"), 3) for x in xs]
        out = []
        for place, x in enumerate(xs):
            read = np.zeros(DIM)
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                logits = [
                    qkv[place][0][part] @ qkv[p][1][part] / np.sqrt(size) for p in read_by(place)
                ]
                share = np.exp(np.array(logits) - max(logits))
                share /= share.sum()
                pairs = zip(share, read_by(place), strict=True)
                read[part] = sum(s * qkv[p][2][part] for s, p in pairs)
            y = x + linear(read, w, f"{b}.out")
            inner = act(linear(norm(y, w, f"{b}.norm2"), w, f"{b}.feed.0"))
            out.append(y + linear(inner, w, f"{b}.feed.3"))
        xs = out
    return np.stack([norm(x, w, "norm") for x in xs])


def by_cosine(states: np.ndarray) -> np.ndarray:
    return states / np.linalg.norm(states, axis=1, keepdims=True) / TEMPERATURE


def sasrec_reference(w: dict[str, np.ndarray], history: Tensor) -> np.ndarray:
    return transformer(w, history, lambda place: range(place + 1), relu)


def cosine_reference(w: dict[str, np.ndarray], history: Tensor) -> np.ndarray:
    return by_cosine(sasrec_reference(w, history))


def bert4rec_reference(w: dict[str, np.ndarray], history: Tensor) -> np.ndarray:
    return transformer(w, history, lambda place: range(len(history)), gelu)


def gru4rec_reference(w: dict[str, np.ndarray], history: Tensor) -> np.ndarray:
    hidden = w["gru.weight_hh_l0"].shape[1]
    state, states = np.zeros(hidden), []
    for i in history.tolist():
        x = w["gru.weight_ih_l0"] @ w["item.weight"][i] + w["gru.bias_ih_l0"]
        h = w["gru.weight_hh_l0"] @ state + w["gru.bias_hh_l0"]
        (xr, xz, xn), (hr, hz, hn) = np.split(x, 3), np.split(h, 3)
        reset, update = special.expit(xr + hr), special.expit(xz + hz)
        state = (1 - update) * np.tanh(xn + reset * hn) + update * state
        states.append(norm(linear(state, w, "out"), w, "norm"))
    return np.stack(states)


def hstu_reference(w: dict[str, np.ndarray], history: Tensor) -> np.ndarray:
    heads = 2
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
            gated = norm(read, w, f"{b}.read_norm") * uvqk[place][0]
            out.append(x + linear(gated, w, f"{b}.out"))
        xs = out
    return by_cosine(np.stack([norm(x, w, "norm") for x in xs]))


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("sasrec", sasrec_reference),
        ("sasrec by cosine", cosine_reference),
        ("hstu", hstu_reference),
        ("bert4rec", bert4rec_reference),
        ("gru4rec", gru4rec_reference),
    ],
)
def test_the_forward_pass_is_that_of_plain_loops(
    name: str, reference: Callable[..., np.ndarray]
) -> None:
    model, history = model_of(name), torch.randint(ITEMS, (3, LENGTH))
    with torch.no_grad():
        states = model.encode(history).numpy()
    for row, expected in zip(states, history, strict=True):
        np.testing.assert_allclose(row, reference(weights(model), expected), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["sasrec by cosine", "hstu"])
def test_scores_by_cosine_lie_within_one_over_the_temperature(name: str) -> None:
    states, vectors = model_of(name)(torch.randint(ITEMS, (3, LENGTH)))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(ITEMS))
    assert (states @ vectors.T).abs().max() <= 1 / TEMPERATURE + 1e-5


def test_what_is_served_by_cosine_ranks_as_the_model_does() -> None:
    model, history = model_of("sasrec by cosine"), torch.randint(ITEMS, (3, LENGTH))
    scores, _ = NextItem(model, ITEMS)(history)
    states, vectors = model(history)
    torch.testing.assert_close(scores, states[:, -1] @ vectors.T)
