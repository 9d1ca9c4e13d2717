"""PowerSGD: what it sends, that nothing is lost for good, and that it finds what is of low rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from techniques.distributed.low_rank import PowerSgd


@pytest.fixture(scope="module", autouse=True)
def _alone() -> Iterator[None]:
    """A process group of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        yield
        dist.destroy_process_group()


def averaged(power: PowerSgd, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
    given_ = gradient.clone()
    power.average([parameter], [given_])
    return given_


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


@given(
    rank=st.integers(1, 4), rows=st.integers(1, 40), columns=st.integers(1, 40),
    steps=st.integers(1, 6), seed=st.integers(0, 999),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_what_a_product_misses_is_given_later(
    rank: int, rows: int, columns: int, steps: int, seed: int
) -> None:
    torch.manual_seed(seed)
    power, one = PowerSgd(rank), parameter(rows, columns)
    gradients = torch.randn(steps, rows, columns)
    given_ = sum(averaged(power, one, gradient) for gradient in gradients)
    missed = power.missed.get(one, torch.zeros(rows, columns))
    torch.testing.assert_close(given_ + missed, gradients.sum(0), rtol=1e-4, atol=1e-4)
    assert (one in power.missed) == (rank * (rows + columns) < rows * columns)


def test_what_is_of_low_rank_is_given_whole() -> None:
    torch.manual_seed(0)
    power, one = PowerSgd(2), parameter(30, 20)
    gradient = torch.randn(30, 2) @ torch.randn(2, 20)
    torch.testing.assert_close(averaged(power, one, gradient), gradient, rtol=1e-4, atol=1e-4)


def test_the_last_directions_are_gone_on_from() -> None:
    """Subspace iteration comes to the best approximation that there is, that by singular values."""
    torch.manual_seed(0)
    power, one = PowerSgd(2), parameter(30, 20)
    left, right = torch.linalg.qr(torch.randn(30, 20)).Q, torch.linalg.qr(torch.randn(20, 20)).Q
    gradient = left @ torch.diag(0.5 ** torch.arange(20.0)) @ right
    best = float((0.5 ** torch.arange(2.0, 20)).norm())
    errors = []
    for _ in range(8):
        power.missed.clear()  # the same matrix each time
        held = dict(power.right)
        power.missed |= {key: torch.zeros(30, 20) for key in held}
        errors.append(float((averaged(power, one, gradient) - gradient).norm()))
    assert errors[0] > 1.02 * best
    assert errors[-1] == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("zero_first", [True, False])
def test_gradients_of_zero_stop_nothing(zero_first: bool) -> None:
    torch.manual_seed(0)
    power, one = PowerSgd(2), parameter(30, 20)
    gradient = torch.randn(30, 20)
    for now in (0 * gradient, gradient) if zero_first else (gradient, 0 * gradient):
        assert torch.isfinite(averaged(power, one, now)).all()
    for _ in range(200):
        averaged(power, one, 0 * gradient)
    assert power.missed[one].norm() < 1e-3 * gradient.norm()


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    reduce: Any = dist.all_reduce
    monkeypatch.setattr(dist, "all_reduce", lambda t: (sent.append(t.nbytes), reduce(t)))
    shapes = [(1000, 16), (50, 40), (40,), (3, 3), (8, 4, 5)]
    parameters = [parameter(*shape) for shape in shapes]
    gradients = [torch.randn(shape) for shape in shapes]
    PowerSgd(2).average(parameters, gradients)
    whole = 4 * (40 + 9)
    assert sent == [whole + 4 * 2 * (1000 + 50 + 8), 4 * 2 * (16 + 40 + 20)]


def test_vectors_alone_are_sent_whole_and_at_once() -> None:
    power, one, gradient = PowerSgd(2), parameter(7), torch.randn(7)
    assert torch.equal(averaged(power, one, gradient), gradient)
    assert not power.missed
