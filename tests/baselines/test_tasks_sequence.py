"""The sequence task: batches, losses, what is served and full ranking, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.base import Dataset
from baselines.data.events import Events
from baselines.data.sequences import sequence_dataset
from baselines.errors import LeanRecError
from baselines.models.sasrec import SASRec
from baselines.tasks.sequence import MASK, Objective, Sequence

CPU = torch.device("cpu")
ITEMS, LENGTH = 30, 6
OBJECTIVES: tuple[Objective, ...] = ("full-ce", "sampled-softmax", "bce", "gbce", "cloze")


def made(repeats: bool = False) -> Dataset:
    rng = np.random.default_rng(0)
    chains = [rng.permutation(ITEMS)[: rng.integers(1, 25)] for _ in range(40)]
    chains.append(np.arange(ITEMS))  # every item comes
    users = np.repeat(np.arange(len(chains)), [len(c) for c in chains])
    return sequence_dataset(
        Events("made", "Made.", users, np.concatenate(chains)), LENGTH, repeats=repeats
    )


@pytest.fixture(scope="module")
def data() -> Dataset:
    return made()


@pytest.fixture
def model() -> SASRec:
    torch.manual_seed(0)
    model = SASRec(ITEMS, LENGTH, 8, 1, 1, 0.0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def batches(task: Sequence, data: Dataset, seed: int = 0) -> list[tuple[Tensor, ...]]:
    return list(task.batches(data, 8, torch.Generator().manual_seed(seed), CPU))


def test_an_epoch_trains_each_position_once_and_cuts_padding(data: Dataset) -> None:
    (history,) = data.train.inputs
    following = torch.cat((history[:, 1:], data.train.items[:, None]), dim=1)
    real = history != ITEMS
    expected = sorted(zip(history[real].tolist(), following[real].tolist(), strict=True))
    got = []
    for rows, places, targets in batches(Sequence(), data):
        assert (rows[:, 0] != ITEMS).any()
        got += zip(rows.flatten()[places].tolist(), targets.tolist(), strict=True)
    assert sorted(got) == expected


def test_little_of_a_batch_of_histories_of_all_lengths_is_padding() -> None:
    lengths = np.random.default_rng(0).geometric(0.12, 3000) + 1
    users = np.repeat(np.arange(len(lengths)), lengths)
    items = np.random.default_rng(1).integers(0, ITEMS, len(users))
    data = sequence_dataset(Events("made", "Made.", users, items), 50)
    drawn = Sequence().batches(data, 64, torch.Generator().manual_seed(0), CPU)
    rows = [history for history, *_ in drawn]
    real = sum(int((history != ITEMS).sum()) for history in rows)
    assert real > 0.95 * sum(history.numel() for history in rows)
    assert len({history.shape[1] for history in rows}) > 10
    (whole,) = data.train.inputs
    assert real == (whole != ITEMS).sum() < 0.25 * whole.numel()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_batch_has_the_loss_of_whole_windows(
    objective: Objective, data: Dataset, model: SASRec
) -> None:
    for drawn, places, *rest in batches(Sequence(objective), data):
        rows = drawn.masked_fill(drawn == MASK, 0)  # SASRec has no vector for it
        cut = LENGTH - rows.shape[1]
        whole = functional.pad(rows, (cut, 0), value=ITEMS)
        moved = places // rows.shape[1] * LENGTH + places % rows.shape[1] + cut
        losses = [Sequence(objective).loss(model.eval(), b) for b in
                  ((rows, places, *rest), (whole, moved, *rest))]  # fmt: skip
        torch.testing.assert_close(*losses)


def test_the_last_item_of_the_catalogue_is_no_padding_where_it_only_comes_first() -> None:
    chains = [[ITEMS - 1, 0, 1, 2, 3], [ITEMS - 1, 4, 5, 6, 7]]
    users = np.repeat(np.arange(2), 5)
    data = sequence_dataset(Events("made", "Made.", users, np.concatenate(chains)), 2)
    trained = torch.cat([targets for *_, targets in batches(Sequence(), data)])
    assert sorted(trained.tolist()) == [0, 1, 4, 5]
    drawn = torch.cat([d for *_, d in batches(Sequence("sampled-softmax", 4000), data)])
    assert drawn.max() == ITEMS - 1


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_batches_follow_the_seed_and_losses_are_float32(
    objective: Objective, data: Dataset, model: SASRec
) -> None:
    task = Sequence(objective, 5)
    for a, b in zip(batches(task, data), batches(task, data), strict=True):
        assert all(map(torch.equal, a, b))
    if objective != "cloze":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = task.loss(model, batches(task, data)[0])
        assert loss.dtype == torch.float32
        loss.backward()
        assert loss.isfinite()


def test_cloze_hides_items_and_asks_for_them(data: Dataset) -> None:
    hidden = total = 0
    for rows, places, targets in batches(Sequence("cloze", hidden=0.3), data):
        asked = rows.flatten()[places]
        assert (asked == MASK).all()
        assert (rows == MASK).sum() == len(places)
        assert (rows == MASK).any(1).all()
        assert (targets < ITEMS).all()
        hidden, total = hidden + len(places), total + int((rows != ITEMS).sum())
    assert 0.25 < hidden / total < 0.5


@pytest.mark.parametrize("objective", OBJECTIVES[:4])
def test_losses_are_those_of_plain_loops(
    objective: Objective, data: Dataset, model: SASRec
) -> None:
    task = Sequence(objective, 5, calibration=0.6)
    history, places, targets, *drawn = batch = batches(task, data)[0]
    with torch.no_grad():
        states = model.encode(history).flatten(0, 1)[places].double().numpy()
        table = model.item.weight.double().numpy()
        found = task.loss(model, batch).item()
    losses = []
    for row, (state, target) in enumerate(zip(states, targets.tolist(), strict=True)):
        own = state @ table[target]
        if objective == "full-ce":
            losses.append(np.log(np.exp(table[:ITEMS] @ state).sum()) - own)
            continue
        chosen = drawn[0][row : row + 1] if objective == "bce" else drawn[0]
        others = np.array([state @ table[n] for n in chosen.tolist() if n != target])
        if objective == "sampled-softmax":
            losses.append(np.log(np.exp(own) + np.exp(others).sum()) - own)
        else:
            alpha = 5 / (ITEMS - 1)
            beta = alpha * (0.6 * (1 - 1 / alpha) + 1 / alpha) if objective == "gbce" else 1.0
            loss = beta * np.log1p(np.exp(-own)) + np.log1p(np.exp(others)).sum()
            losses.append(loss / (6 if objective == "gbce" else 1))
    assert found == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_answer_is_the_last_state_against_all_items(data: Dataset, model: SASRec) -> None:
    (history,) = data.test.inputs
    all_scores, best = Sequence().predictor(model, data)(history[:4])
    expected = model.encode(history[:4])[:, -1] @ model.item.weight[:ITEMS].T
    torch.testing.assert_close(all_scores, expected)
    assert torch.equal(best[:, 0], all_scores.argmax(1))


def test_a_model_without_states_is_told_so(data: Dataset) -> None:
    with pytest.raises(LeanRecError, match="no submodule 'item'"):
        Sequence().predictor(nn.Linear(2, 2), data)


class Fixed(nn.Module):
    """Scores that depend on the last item alone, with ties."""

    def forward(self, history: Tensor) -> Tensor:
        return ((history[:, -1:] + torch.arange(ITEMS)) * 7 % 5).float()


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_ranks_are_those_of_a_plain_loop(part: str, repeats: bool) -> None:
    data = made(repeats)
    split = getattr(data, part)
    scored = Sequence().score(Fixed(), data, split, CPU)
    earlier = [data.train] if part == "valid" else [data.train, data.valid]
    for row, user in enumerate(split.users.tolist()):
        seen = set(split.inputs[0][row].tolist())
        for s in earlier:
            mine = s.users == user
            seen |= set(s.inputs[0][mine].flatten().tolist()) | set(s.items[mine].tolist())
        target = int(split.items[row])
        values = Fixed()(split.inputs[0][row : row + 1])[0]
        listed = [i for i in range(ITEMS) if repeats or i == target or i not in seen]
        rank = sum(bool(values[i] >= values[target]) for i in listed)
        assert scored.columns["rank"][row] == rank
    assert scored.unit.tolist() == split.users.tolist()
