"""How much arithmetic a model does for a request."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from baselines.base import Batch


def multiply_adds(model: nn.Module, request: Batch) -> int:
    """The multiply-adds of matrix products, attention's included, when `model` answers `request`.

    Attention is counted in plain products: torch does not count inside its fused CPU kernel.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(*request)
    return int(counter.get_total_flops()) // 2
