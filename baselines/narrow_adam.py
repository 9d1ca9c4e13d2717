"""Adam whose moments are held in bfloat16 between steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")


class NarrowAdam(torch.optim.Optimizer):
    """`torch.optim.Adam`, or AdamW where `decoupled`, with moments in bfloat16; half the state.

    All arithmetic is float32: a step reads the moments, updates them and the weights, and rounds
    the moments stochastically, up or down with the odds that keep the expectation. Rounded to the
    nearest, the second moment would stand still: it moves by 1 − β2, a thousandth of itself, in a
    step, and bfloat16's steps are up to a hundredth wide. The bits are drawn from torch's
    generator of the parameter's device. Gradients are dense.

    Source: Kingma and Ba, arXiv:1412.6980; rounding as in Gupta et al., "Deep Learning with
    Limited Numerical Precision", arXiv:1502.02551.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, decoupled: bool = False,
    ) -> None:  # fmt: skip
        """params, lr, betas, eps, weight_decay: as torch's Adam takes them."""
        self.decoupled = decoupled
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient. closure: none is called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        lr, decay = group["lr"], group["weight_decay"]
        if not state:
            state["step"] = 0
            for name in MOMENTS:
                state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        state["step"] += 1
        if decay and self.decoupled:
            parameter.mul_(1 - lr * decay)
        elif decay:
            gradient = gradient.add(parameter, alpha=decay)
        first = state["exp_avg"].float().lerp_(gradient, 1 - beta1)
        second = state["exp_avg_sq"].float().mul_(beta2)
        second.addcmul_(gradient, gradient, value=1 - beta2)
        size = (second / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        parameter.addcdiv_(first, size, value=-lr / (1 - beta1 ** state["step"]))
        for name, moment in zip(MOMENTS, (first, second), strict=True):
            state[name] = round_stochastically(moment)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which makes moments float32 as the parameters are; exactly back from that."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state.update({name: state[name].bfloat16() for name in MOMENTS})


def round_stochastically(x: Tensor) -> Tensor:
    """float32 to bfloat16, up or down with odds by distance; exact numbers stay. `x` is spoilt.

    bfloat16 is the upper half of a float32's bits: a random lower half is added, then cut off.
    Finite numbers within a step of bfloat16's largest may become infinite.
    """
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None)  # four lower halves in a word, an eighth of the time of randint
    halves = words.view(torch.int16)[: x.numel()].view(x.shape)
    bits = x.view(torch.int32).add_(halves).add_(2**15)  # halves are signed
    return bits.bitwise_and_(-(2**16)).view(torch.float32).bfloat16()
