"""The bare kernels that techniques are held against do the same work."""

from __future__ import annotations

import pytest
import torch

from bench.speed.kernels import BARE, FEW, engines, models, pruned, rows


@pytest.mark.parametrize("name", BARE)
@torch.inference_mode()
def test_the_bare_kernel_answers_as_the_technique(name: str) -> None:
    ours, bare, control, x = models(name, 64)
    exact = control(x)
    error = (ours(x) - exact).norm()
    assert (ours(x) - bare(x)).norm() <= 1.5 * error
    assert error < 0.05 * exact.norm()


@torch.inference_mode()
def test_the_engines_of_int8_answer_alike() -> None:
    ours, other, x = engines(64, 5)
    torch.testing.assert_close(ours(x), other(x), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_half_the_hidden_units_leave_the_macs_that_are_counted_by_hand() -> None:
    fewer, control, x, saved = pruned(64)
    assert saved == 3 * 64 * 64 / (64 * 32 + 32 * 32 + 32 * 64)
    assert fewer(x).shape == control(x).shape


@pytest.mark.slow
def test_every_technique_has_a_row_and_the_threads_come_back() -> None:
    threads = torch.get_num_threads()
    made = rows(quick=True)
    assert [row.work for row in made] == [
        *(f"{name}, 400 wide" for name in (*BARE, "prune-structured")),
        *(f"int8-linear, 400 wide, batch {batch}" for batch in FEW),
    ]
    assert all(row.ratio and row.ratio > 0 for row in made)
    assert torch.get_num_threads() == threads
