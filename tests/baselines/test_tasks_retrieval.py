"""The retrieval task: its losses, negatives, index and full ranking, against plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from baselines.base import Dataset, Split
from baselines.data import planted
from baselines.errors import LeanRecError
from baselines.models.two_tower import TwoTower
from baselines.tasks import ranking
from baselines.tasks.retrieval import Objective, Retrieval

CPU = torch.device("cpu")


def split_of(pairs: list[tuple[int, int]]) -> Split:
    users, items = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return Split((users, items), torch.ones(len(users)), users, items, {"parity": items % 2})


def dataset_of(train: Split) -> Dataset:
    sizes = {"user": int(train.users.max()) + 1, "item": int(train.items.max()) + 1}
    return Dataset("pairs", train, train, train, sizes, "")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted.interactions(users=40, items=150, rows=2000)


@pytest.fixture
def model(data: Dataset) -> TwoTower:
    torch.manual_seed(0)
    return TwoTower(*data.fields.values(), 8, std=1.0)


def test_sampled_softmax_leaves_out_a_negative_that_is_the_positive() -> None:
    torch.manual_seed(0)
    model = TwoTower(3, 5, 4, std=1.0)
    users, positives, negatives = [0, 2, 1], [1, 4, 0], [1, 3, 3, 2]
    batch = tuple(torch.tensor(t) for t in (users, positives, negatives))
    user, item = (t.weight.detach().double().numpy() for t in (model.user, model.item))
    losses = []
    for u, p in zip(users, positives, strict=True):
        others = [np.exp(user[u] @ item[n]) for n in negatives if n != p]
        own = np.exp(user[u] @ item[p])
        losses.append(-np.log(own / (own + sum(others))))
    loss = Retrieval("sampled-softmax").loss(model, batch)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    loss.backward()
    assert model.user.weight.grad is not None
    assert model.user.weight.grad.isfinite().all()


def test_bpr_compares_each_positive_with_its_own_negative() -> None:
    torch.manual_seed(0)
    model = TwoTower(3, 5, 4, std=1.0)
    users, positives, negatives = [0, 2, 1], [1, 4, 0], [1, 3, 2]
    batch = tuple(torch.tensor(t) for t in (users, positives, negatives))
    user, item = (t.weight.detach().double().numpy() for t in (model.user, model.item))
    margins = [
        user[u] @ (item[p] - item[n]) for u, p, n in zip(users, positives, negatives, strict=True)
    ]
    expected = np.mean(np.log1p(np.exp(-np.array(margins))))
    assert Retrieval("bpr").loss(model, batch).item() == pytest.approx(expected, rel=1e-5)


def test_in_batch_softmax_corrects_each_logit_by_the_log_of_the_items_share() -> None:
    torch.manual_seed(0)
    model = TwoTower(4, 5, 4, std=1.0)
    users, positives, shares = [0, 2, 1, 3], [1, 4, 1, 0], [0.5, 0.1, 0.5, 0.2]
    batch = torch.tensor(users), torch.tensor(positives), torch.tensor(shares).log()
    user, item = (v.detach().double().numpy() for v in model(torch.arange(4), torch.arange(5)))
    losses = []
    for row, (u, p) in enumerate(zip(users, positives, strict=True)):
        own = np.exp(user[u] @ item[p]) / shares[row]
        others = [
            np.exp(user[u] @ item[q]) / share
            for q, share in zip(positives, shares, strict=True)
            if q != p  # another row of the same item is no negative
        ]
        losses.append(-np.log(own / (own + sum(others))))
    loss = Retrieval("in-batch").loss(model, batch)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_in_batch_shares_are_those_of_the_training_rows(data: Dataset) -> None:
    _, positives, logs = next(Retrieval("in-batch").batches(data, 50, torch.Generator(), CPU))
    items = data.train.items.tolist()
    expected = [items.count(item) / len(items) for item in positives.tolist()]
    np.testing.assert_allclose(logs.exp().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("objective", ["sampled-softmax", "in-batch", "bpr"])
def test_the_loss_is_float32_under_autocast(
    objective: Objective, data: Dataset, model: TwoTower
) -> None:
    task = Retrieval(objective, 16)
    batch = next(task.batches(data, 32, torch.Generator(), CPU))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert task.loss(model, batch).dtype == torch.float32


@pytest.mark.parametrize("objective", ["sampled-softmax", "in-batch", "bpr"])
def test_an_epoch_holds_every_interaction_once(objective: Objective, data: Dataset) -> None:
    def epoch(seed: int) -> list[tuple[Tensor, ...]]:
        generator = torch.Generator().manual_seed(seed)
        return list(Retrieval(objective, 16).batches(data, 100, generator, CPU))

    batches = epoch(0)
    pairs = Counter(
        (u, i) for us, ps, _ in batches for u, i in zip(us.tolist(), ps.tolist(), strict=True)
    )
    assert pairs == Counter(zip(data.train.users.tolist(), data.train.items.tolist(), strict=True))
    for a, b in zip(batches, epoch(0), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(batches[0][0], epoch(1)[0][0])


def test_shared_negatives_cover_the_catalogue_evenly(data: Dataset) -> None:
    batches = Retrieval(negatives=4000).batches(data, 100, torch.Generator(), CPU)
    negatives = torch.cat([negatives for *_, negatives in batches])
    counts = negatives.bincount(minlength=int(data.train.items.max()) + 1)
    expected = len(negatives) / len(counts)
    assert counts.float().sub(expected).abs().max() < 6 * expected**0.5


def test_bpr_negatives_are_items_that_the_user_has_not_taken() -> None:
    train = split_of([(u, i) for u in range(20) for i in range(3)] + [(0, 99)])
    taken = set(zip(train.users.tolist(), train.items.tolist(), strict=True))
    batches = Retrieval("bpr").batches(dataset_of(train), 8, torch.Generator(), CPU)
    for users, _, negatives in batches:
        drawn = zip(users.tolist(), negatives.tolist(), strict=True)
        assert not taken & set(drawn)


def test_bpr_ends_even_where_a_user_has_taken_everything() -> None:
    everything = split_of([(0, i) for i in range(4)])
    batches = Retrieval("bpr").batches(dataset_of(everything), 2, torch.Generator(), CPU)
    assert len(list(batches)) == 2


def test_the_answer_is_all_scores_and_the_best_items(data: Dataset, model: TwoTower) -> None:
    predictor = Retrieval().predictor(model, data)
    users = torch.tensor([3, 3, 39])
    all_scores, best = predictor(users)
    expected = model.user.weight[users].detach().double() @ model.item.weight.detach().double().T
    assert all_scores.dtype == torch.float32
    np.testing.assert_allclose(all_scores.detach(), expected, rtol=1e-4, atol=1e-4)
    assert best.shape == (3, 100)
    order = (-all_scores).argsort(dim=1, stable=True)[:, :100]
    assert torch.equal(best, order)


def test_a_small_catalogue_is_answered_in_full() -> None:
    data = planted.interactions(users=30, items=20, rows=600)
    _, best = Retrieval().predictor(TwoTower(30, 20, 4), data)(torch.tensor([0]))
    assert best.sort().values.tolist() == [list(range(20))]


def test_the_index_is_a_copy_and_the_item_tower_stays_behind(
    data: Dataset, model: TwoTower
) -> None:
    predictor = Retrieval().predictor(model, data)
    before = predictor(torch.tensor([1]))[0].detach().clone()
    with torch.no_grad():
        model.item.weight.zero_()
    assert torch.equal(predictor(torch.tensor([1]))[0], before)
    held = sum(t.numel() for t in (*predictor.parameters(), *predictor.buffers()))
    assert held == model.user.weight.numel() + 150 * 8


class Halves(nn.Module):
    """A compressed embedding as a technique makes it: the same call, no `weight`, no parameter."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.register_buffer("codes", table.weight.detach().half())

    def forward(self, ids: Tensor) -> Tensor:
        return self.codes[ids].float()


def test_compressed_towers_are_served_by_their_call(data: Dataset, model: TwoTower) -> None:
    plain, users = Retrieval().predictor(model, data), torch.arange(40)
    compressed = TwoTower(*data.fields.values(), 8)
    compressed.user, compressed.item = Halves(model.user), Halves(model.item)  # type: ignore[assignment]
    served = Retrieval().predictor(compressed, data)
    torch.testing.assert_close(served(users)[0], plain(users)[0], rtol=0.01, atol=0.05)
    scored = Retrieval().score(served, data, data.test, CPU)
    assert 0 <= Retrieval().metrics[0](scored) <= 1


def test_a_model_without_towers_is_told_so(data: Dataset) -> None:
    with pytest.raises(LeanRecError, match="no submodules 'user' and 'item'"):
        Retrieval().predictor(nn.Linear(2, 2), data)


class Fixed(nn.Module):
    """A predictor with the scores it is given."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, users: Tensor) -> tuple[Tensor, Tensor]:
        return self.table[users], self.table[users].argsort(1)


@st.composite
def ranked(draw: st.DrawFn) -> tuple[Dataset, Tensor]:
    users, items = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    pairs = [(u, i) for u in range(users) for i in range(items)]
    part = draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)))
    train, valid, test = (
        split_of([p for p, k in zip(pairs, part, strict=True) if k == number])
        for number in range(3)
    )
    table = draw(
        st.lists(
            st.lists(st.integers(-1, 1), min_size=items, max_size=items),
            min_size=users, max_size=users,
        )
    )  # fmt: skip
    fields = {"user": users, "item": items}
    return Dataset("drawn", train, valid, test, fields, ""), torch.tensor(table).float()


@settings(max_examples=150)
@given(drawn=ranked(), block=st.sampled_from([1, 6, 2**22]))
def test_ranks_are_those_of_a_plain_loop(drawn: tuple[Dataset, Tensor], block: int) -> None:
    data, table = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BLOCK", block)
        for split, earlier in ((data.valid, [data.train]), (data.test, [data.train, data.valid])):
            if not len(split):
                continue
            scored = Retrieval().score(Fixed(table), data, split, CPU)
            seen = {
                (u, i)
                for s in earlier
                for u, i in zip(s.users.tolist(), s.items.tolist(), strict=True)
            }
            expected = []
            for u, i in sorted(zip(split.users.tolist(), split.items.tolist(), strict=True)):
                listed = [j for j in range(table.shape[1]) if (u, j) not in seen]
                rank = sum(bool(table[u, j] >= table[u, i]) for j in listed)
                expected.append((u, i % 2, rank, int((split.users == u).sum())))
            columns = scored.columns
            parity = scored.segments["parity"]
            got = zip(columns["user"], parity, columns["rank"], columns["relevant"], strict=True)
            assert sorted(tuple(map(int, row)) for row in got) == sorted(expected)
            assert scored.unit.tolist() == columns["user"].tolist()


def test_requests_hold_active_users_more_often(data: Dataset) -> None:
    requests = Retrieval().requests(data, 64, 50, seed=1)
    assert all(len(request) == 1 and request[0].shape == (64,) for request in requests)
    drawn = torch.cat([r[0] for r in requests]).bincount(minlength=40) / (64 * 50)
    true = data.test.users.bincount(minlength=40) / len(data.test)
    torch.testing.assert_close(drawn, true, atol=0.01, rtol=0)
    assert torch.equal(requests[0][0], Retrieval().requests(data, 64, 50, seed=1)[0][0])
