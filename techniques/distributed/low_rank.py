"""Gradients averaged as products of two thin matrices: PowerSGD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.futures import Future

from baselines.parallel import Team
from techniques.distributed.data_parallel import EveryStep, Synchronous

SEED = 0  # of the first right factors, which all ranks draw alike


class PowerSgd:
    """Averages gradients over the ranks, a matrix M of [n, m] as P·Qᵀ with `rank` columns each.

    Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for
    Distributed Optimization", NeurIPS 2019, algorithms 1 and 2: one step of subspace iteration from
    the last Q (warm start); what the product misses is added to the next gradient (error feedback).
    A rank gives 4·rank·(n + m) bytes to two collectives. What that would not make smaller, vectors
    among it, is sent whole with the first.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.missed: dict[Tensor, Tensor] = {}
        self.right: dict[Tensor, Tensor] = {}
        self._draw = torch.Generator().manual_seed(SEED)

    @torch.no_grad()
    def average(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Replace the gradients of `parameters`, float32, by what stands for their mean over the
        ranks, the same on all of them. All ranks give the same parameters in the same order."""
        matrices, others = {}, []
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if self._pays(gradient):
                matrices[parameter] = gradient.view(len(gradient), -1)
            else:
                others.append(gradient)
        for parameter, matrix in matrices.items():
            if parameter in self.missed:
                matrix.add_(self.missed[parameter])
            else:
                drawn = torch.randn(matrix.shape[1], self.rank, generator=self._draw)
                self.right[parameter] = drawn.to(matrix.device)
        left = [matrix @ self.right[parameter] for parameter, matrix in matrices.items()]
        _average([*others, *left])
        left = [torch.linalg.qr(one).Q for one in left]
        right = [matrix.T @ one for matrix, one in zip(matrices.values(), left, strict=True)]
        _average(right)
        for (parameter, matrix), p, q in zip(matrices.items(), left, right, strict=True):
            product = p @ q.T
            self.missed[parameter], self.right[parameter] = matrix - product, q
            matrix.copy_(product)

    def _pays(self, gradient: Tensor) -> bool:
        if gradient.ndim < 2:
            return False
        n = len(gradient)
        return self.rank * (n + gradient.numel() // n) < gradient.numel()


def _average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their means over the ranks, by one collective."""
    if not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


class LowRankGradients(Synchronous):
    """Gradients are averaged by `PowerSgd`, bucket by bucket.

    Each is waited for before the next: in torch's own hook, a callback of one collective waits for
    another, which hangs where a single thread serves both.
    """

    def __init__(self, whole: nn.Module, rank: int) -> None:
        super().__init__(whole)
        self.power = PowerSgd(rank)

    def wrap(self, forward: nn.Module) -> nn.Module:
        """Buckets go through `PowerSgd`."""
        super().wrap(forward)
        self.ddp.register_comm_hook(None, lambda state, bucket: self._averaged(bucket))
        return self.ddp

    def _averaged(self, bucket: GradBucket) -> Future[Tensor]:
        self.power.average(bucket.parameters(), bucket.gradients())
        done: Future[Tensor] = Future()
        done.set_result(bucket.buffer())
        return done

    def kept(self) -> list[Tensor]:
        """What products have missed, and the right factors."""
        return [*self.power.missed.values(), *self.power.right.values()]


@dataclass(frozen=True)
class InLowRank(EveryStep):
    """Gradients are averaged at every batch, as products of `rank` columns."""

    rank: int

    def join(self, whole: nn.Module) -> Team:
        """A team whose gradients are of low rank."""
        return LowRankGradients(whole, self.rank)
