"""A compiled library: eager mode's answers at every batch size, from the weights as they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from techniques.base import TECHNIQUES, Context
from techniques.sizes import deployed_bytes

AOT = TECHNIQUES.make("aot-inductor")


@pytest.mark.slow
def test_answers_are_eager_modes_at_every_batch_size(
    click_model: nn.Module, context: Context
) -> None:
    served = AOT.deploy(click_model, context)
    assert deployed_bytes(served) == deployed_bytes(click_model)
    with torch.inference_mode():
        for rows in (64, 0, 1, 7, 500):
            ids = torch.randint(200, (rows, 2))
            torch.testing.assert_close(served(ids), click_model(ids), rtol=0, atol=1e-5)
