"""ONNX Runtime: eager mode's answers at every batch size, by as many threads as torch has."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from baselines.base import Batch
from baselines.errors import LeanRecError
from baselines.models.sasrec import SASRec
from baselines.tasks.sequence import NextItem
from techniques.base import TECHNIQUES, Context
from techniques.sizes import deployed_bytes

ORT = pytest.importorskip("onnxruntime")
ORT_GRAPHS = pytest.importorskip("onnx")
SERVED, INT8 = map(TECHNIQUES.make, ("onnxruntime", "onnxruntime-int8"))


@pytest.fixture
def served(click_model: nn.Module, context: Context) -> nn.Module:
    """`click_model` in ONNX Runtime."""
    return SERVED.deploy(click_model, context)


@pytest.mark.parametrize("rows", [0, 1, 7, 64, 500])
def test_answers_are_eager_modes_at_every_batch_size(
    click_model: nn.Module, served: nn.Module, rows: int
) -> None:
    ids = torch.randint(200, (rows, 2))
    with torch.inference_mode():
        torch.testing.assert_close(served(ids), click_model(ids), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_histories_of_every_length() -> None:
    torch.manual_seed(0)
    predictor = NextItem(SASRec(300, 50, 32, 2, 1, 0.0).eval(), 300)
    histories = torch.randint(300, (64, 50))
    context = Context("sequence", torch.device("cpu"), 0, ((histories,),))
    served = SERVED.deploy(predictor, context)
    with torch.inference_mode():
        for length in (50, 9, 1):
            cut = histories[:, -length:]
            torch.testing.assert_close(served(cut)[0], predictor(cut)[0], rtol=0, atol=1e-5)


def test_deployed_bytes_are_those_of_the_weights_and_a_small_graph(
    click_model: nn.Module, served: nn.Module
) -> None:
    assert 0 < deployed_bytes(served) - deployed_bytes(click_model) < 10_000


def test_a_session_has_the_threads_that_torch_has(served: nn.Module) -> None:
    ids = torch.zeros(1, 2, dtype=torch.int64)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            served(ids)
            assert served.session.get_session_options().intra_op_num_threads == threads
    finally:
        torch.set_num_threads(before)


def test_int8_shrinks_the_layers_and_stays_near(
    click_model: nn.Module, request_batch: Batch, context: Context
) -> None:
    quantised = INT8.deploy(click_model, context)
    with torch.inference_mode():
        exact, answer = click_model(*request_batch), quantised(*request_batch)
    assert 0 < (answer - exact).norm() / exact.norm() < 0.04
    layers = sum(m.weight.nbytes for m in click_model.modules() if isinstance(m, nn.Linear))
    saved = deployed_bytes(click_model) - deployed_bytes(quantised)
    assert 0.6 * layers < saved < 0.75 * layers


def test_what_cannot_be_exported_says_so(context: Context) -> None:
    class Branching(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return ids.float() if ids.sum() > 0 else -ids.float()

    with pytest.raises(LeanRecError, match="cannot be exported to ONNX"):
        SERVED.deploy(Branching(), context)


def operations(served: nn.Module) -> list[str]:
    """The kinds of a served graph's nodes, in order."""
    graph = ORT_GRAPHS.load_from_string(served.get_buffer("graph").numpy().tobytes()).graph
    return [node.op_type for node in graph.node]


def test_rows_are_flattened_by_one_node(served: nn.Module) -> None:
    """The exporter would compute their length from the request's shape."""
    found = operations(served)
    assert "Flatten" in found
    assert not {"Reshape", "Shape"} & set(found)


def test_an_answer_that_is_a_flat_row_is_given_under_its_name(context: Context) -> None:
    class Flat(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return ids.float().unsqueeze(2).expand(-1, -1, 3).flatten(1)

    served = SERVED.deploy(Flat(), context)
    ids = torch.arange(8).view(4, 2)
    torch.testing.assert_close(served(ids), Flat()(ids))


def test_rows_that_a_reshape_mixes_are_not_flattened(context: Context) -> None:
    class Mixing(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return ids.float().unsqueeze(2).expand(-1, -1, 4).reshape(-1, 2)

    served = SERVED.deploy(Mixing(), context)
    for rows in (1, 4):
        ids = torch.arange(2 * rows).view(rows, 2)
        torch.testing.assert_close(served(ids), Mixing()(ids))


def test_int8_leaves_the_layer_of_one_output_in_float32(
    click_model: nn.Module, context: Context
) -> None:
    quantised = INT8.deploy(click_model, context)
    found = operations(quantised)
    integers, products = found.count("MatMulInteger"), found.count("MatMul") + found.count("Gemm")
    assert (integers, products) == (3, 1)
