"""prune-rows: the rarest go, what stays is as it was, the index counts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from baselines.base import Batch, Split
from baselines.errors import LeanRecError
from techniques.base import TECHNIQUES, Context
from techniques.pruning.rare_rows import SharedRowEmbedding
from techniques.sizes import deployed_bytes

PRUNE = TECHNIQUES.make("prune-rows")


def split(*inputs: Tensor) -> Split:
    """A split with these inputs, and nothing else that counts."""
    nothing = torch.zeros(len(inputs[0]))
    return Split(inputs, nothing, nothing.long(), nothing.long())


@pytest.fixture
def trained(context: Context) -> Context:
    """The context of a training that met id i of `click_model` i times in each column."""
    column = torch.arange(200).repeat_interleave(torch.arange(200))
    return dataclasses.replace(context, train=split(torch.stack((column, column), dim=1)))


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.9])
def test_the_rarest_rows_share_their_mean_and_the_others_stay(
    click_model: nn.Module, trained: Context, ratio: float
) -> None:
    gone = int(200 * ratio)
    pruned = TECHNIQUES.make(f"prune-rows(ratio={ratio})").compress(click_model, trained)
    before, after = click_model.embedding.weight, pruned.embedding(torch.arange(200))
    assert torch.equal(after[gone:], before[gone:])
    counts = torch.arange(gone)[:, None]
    mean = (before[:gone] * counts).sum(0) / counts.sum()
    torch.testing.assert_close(after[:gone], mean.expand(gone, -1))
    assert torch.equal(pruned.embedding.weight, after)


def test_rows_that_nobody_met_go_first_and_become_zero(
    click_model: nn.Module, context: Context
) -> None:
    known = dataclasses.replace(context, train=split(torch.arange(100, 200).view(50, 2)))
    pruned = PRUNE.compress(click_model, known)
    assert torch.equal(pruned.embedding.weight[100:], click_model.embedding.weight[100:])
    assert not pruned.embedding.weight[:100].any()


def test_the_index_and_the_shared_row_count_as_bytes(
    click_model: nn.Module, trained: Context
) -> None:
    pruned = PRUNE.compress(click_model, trained)
    assert deployed_bytes(pruned.embedding) == (100 + 1) * 32 * 4 + 200 * 4
    lost = deployed_bytes(click_model) - deployed_bytes(pruned)
    assert lost == (100 - 1) * 32 * 4 - 200 * 4


class Fields(nn.Module):
    """A small table that everything reads, a large one, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.day, self.item = nn.Embedding(7, 8), nn.Embedding(1000, 8)
        self.idle = nn.Embedding(500, 8)

    def forward(self, day: Tensor, item: Tensor) -> Tensor:
        return self.day(day) + self.item(item)


def test_rows_are_ranked_over_all_tables_that_are_called(context: Context) -> None:
    model, every = Fields(), torch.arange(1000)
    known = dataclasses.replace(context, train=split(every % 7, every))
    pruned = PRUNE.compress(model, known)
    assert type(pruned.day) is nn.Embedding
    assert type(pruned.idle) is nn.Embedding
    assert pruned.day.weight is model.day.weight
    assert len(pruned.item.rows.weight) == 1000 - int(0.5 * 1007) + 1


def test_says_how_often_requests_are_out_of_vocabulary(
    click_model: nn.Module, trained: Context, request_batch: Batch
) -> None:
    share = (request_batch[0] < 100).float().mean().item()
    assert PRUNE.explain(click_model, trained) == (
        f"prune-rows: 100 of 200 rows become one a table; {share:.1%} of the look-ups of requests "
        "are out of vocabulary"
    )


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_look_up_takes_ids_of_any_shape(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    table, kept = nn.Embedding(50, 16), torch.arange(50) >= 20
    pruned = SharedRowEmbedding(table.weight, torch.ones(50, dtype=torch.int64), kept)
    ids = torch.randint(20, 50, shape, dtype=dtype)
    assert torch.equal(pruned(ids), table(ids))
    for id_ in (-1, 50):
        with pytest.raises(IndexError, match="out of range"):
            pruned(torch.tensor([id_]))


def test_what_stays_can_be_quantised(
    click_model: nn.Module, trained: Context, request_batch: Batch
) -> None:
    pruned = PRUNE.compress(click_model, trained)
    both = TECHNIQUES.make("int8-embedding").compress(pruned, trained)
    exact, answer = pruned(*request_batch), both(*request_batch)
    assert (answer - exact).norm() / exact.norm() < 0.04
    assert deployed_bytes(both.embedding) == (100 + 1) * (32 + 8) + 200 * 4


def test_after_quantisation_there_is_nothing_to_drop(
    click_model: nn.Module, trained: Context
) -> None:
    quantised = TECHNIQUES.make("int8-embedding").compress(click_model, trained)
    with pytest.raises(LeanRecError, match="prune before"):
        PRUNE.compress(quantised, trained)


def test_too_few_rows_to_pay_for_the_index_is_an_error(
    click_model: nn.Module, trained: Context
) -> None:
    with pytest.raises(LeanRecError, match="No embedding table gets smaller by losing 3%"):
        TECHNIQUES.make("prune-rows(ratio=0.03)").compress(click_model, trained)


def test_without_a_train_split_it_cannot_tell(click_model: nn.Module, context: Context) -> None:
    with pytest.raises(LeanRecError, match="no train split"):
        PRUNE.compress(click_model, context)


@pytest.mark.cuda
def test_drops_the_same_rows_on_cuda(click_model: nn.Module, trained: Context) -> None:
    expected = PRUNE.compress(click_model, trained).embedding.weight
    on_cuda = dataclasses.replace(trained, device=torch.device("cuda"))
    pruned = PRUNE.compress(click_model.to("cuda"), on_cuda)
    torch.testing.assert_close(pruned.embedding.weight.cpu(), expected)
