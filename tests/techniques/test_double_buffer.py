"""Two copies that change places: after each change, the answers of the new weights to the bit."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from techniques.asynchronous.double_buffer import Delta, DoubleBuffered
from techniques.base import TECHNIQUES, Context
from techniques.sizes import deployed_bytes

CONTEXT = Context("ctr", torch.device("cpu"), 0)


class Small(nn.Module):
    """A table, a layer, a scalar and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 3)
        self.layer = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int64 [B]."""
        given_: Tensor = self.layer(self.table(ids)) * self.scale + self.steps
        return given_


EVERY = torch.arange(12)


def trained_on(model: Small, rows: list[int], dense: bool) -> None:
    """Changes `model` where training on `rows` would."""
    with torch.no_grad():
        for row in rows:
            model.table.weight[row] += torch.randn(3)
        if dense:
            model.layer.weight += torch.randn(2, 3)
            model.scale += 1
            model.steps += 1


changes = st.lists(st.tuples(st.lists(st.integers(0, 11), max_size=12), st.booleans()), max_size=6)


@given(changes=changes, seed=st.integers(0, 99))
def test_deltas_and_whole_swaps_answer_as_the_new_weights_do(
    changes: list[tuple[list[int], bool]], seed: int
) -> None:
    torch.manual_seed(seed)
    model = Small()
    by_delta, by_whole = DoubleBuffered(model), DoubleBuffered(model)
    for rows, dense in changes:
        before = by_delta(EVERY)
        trained_on(model, rows, dense)
        new = model.state_dict()
        delta = Delta.between(by_delta.serving.state_dict(), new)
        assert set(delta.rows) | set(delta.whole) <= set(new)
        if rows and len(set(rows)) <= 6:
            assert delta.rows["table.weight"][0].tolist() == sorted(set(rows))
        by_delta.write(delta)
        assert torch.equal(by_delta(EVERY), before)
        by_delta.exchange()
        by_whole.swap(new)
        assert torch.equal(by_delta(EVERY), model(EVERY))
        assert torch.equal(by_whole(EVERY), model(EVERY))
        for name, tensor in by_delta.serving.state_dict().items():
            assert torch.equal(tensor, new[name])


def test_what_was_not_touched_is_not_carried() -> None:
    model = Small()
    old = copy.deepcopy(model.state_dict())
    trained_on(model, [4, 7], dense=False)
    delta = Delta.between(old, model.state_dict())
    assert not delta.whole
    assert delta.nbytes == 2 * 8 + 2 * 3 * 4
    assert Delta.between(old, old).nbytes == 0


def test_a_kept_delta_does_not_follow_the_weights_that_it_was_made_of() -> None:
    model = Small()
    held = DoubleBuffered(model)
    for _ in range(3):
        trained_on(model, list(range(12)), dense=True)
        held.update(Delta.between(held.serving.state_dict(), model.state_dict()))
        expected = model(EVERY)
        trained_on(model, [0], dense=True)  # goes on while the copies answer
        assert torch.equal(held(EVERY), expected)


def test_no_answer_is_of_mixed_weights() -> None:
    """Another thread writes while this one answers, and exchanges between two calls."""
    held = DoubleBuffered(nn.Linear(400, 400, bias=False))
    held.swap({"weight": torch.zeros(400, 400)})
    written, exchanged, stop = threading.Event(), threading.Event(), threading.Event()

    def writes() -> None:
        number = 1.0
        while not stop.is_set():
            held.write(Delta(whole={"weight": torch.full((400, 400), number)}))
            number += 1
            exchanged.clear()
            written.set()
            exchanged.wait()

    thread = threading.Thread(target=writes)
    thread.start()
    ones, seen = torch.eye(400), set()
    with torch.inference_mode():
        while len(seen) < 20:
            (value,) = held(ones).unique().tolist()
            seen.add(value)
            if written.is_set():
                written.clear()
                held.exchange()
                exchanged.set()
    stop.set()
    exchanged.set()
    thread.join()
    assert max(seen) >= 18


def test_the_predictor_is_left_alone_and_held_twice() -> None:
    model = Small()
    held = TECHNIQUES.make("async-refresh").deploy(model, CONTEXT)
    assert isinstance(held, DoubleBuffered)
    assert deployed_bytes(held) == 2 * deployed_bytes(model)
    before = copy.deepcopy(model.state_dict())
    held.swap({name: tensor + 1 for name, tensor in before.items()})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_state_of_another_model_is_refused() -> None:
    held = DoubleBuffered(Small())
    with pytest.raises(KeyError):
        held.swap({"other": torch.ones(1)})
