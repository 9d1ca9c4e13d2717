"""What a predictor will look up for a request, found by running it no further than it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from baselines.base import Batch
from techniques.surgery import copy_with

Read = Callable[[int, Tensor], Tensor]  # from the number of a table, and ids, to their rows


class LookUps:
    """Runs a copy of `predictor` whose tables are `read`, and stops it at its last look-up.

    The copy shares all weights. `count`, how many look-ups a request makes, is learned from one
    whole run.
    """

    def __init__(
        self, predictor: nn.Module, tables: Sequence[nn.Module], example: Batch, read: Read
    ) -> None:
        """tables: modules of `predictor`, from ids [...] to rows [..., d]. example: a request."""
        self._read, self._left, self.count = read, -1, 0
        instead = {table: _Table(number, self._look_up) for number, table in enumerate(tables)}
        self._predictor = copy_with(predictor, instead)
        with torch.inference_mode():
            self._predictor(*example)
        self.count = -1 - self._left

    def __call__(self, *request: Tensor) -> None:
        """`read` what the request asks of the tables, in the order in which it does."""
        self._left = self.count
        try:
            with torch.inference_mode():
                self._predictor(*request)
        except _Stop:
            pass

    def _look_up(self, number: int, ids: Tensor) -> Tensor:
        rows = self._read(number, ids)
        self._left -= 1
        if not self._left:
            raise _Stop
        return rows


class _Stop(Exception):  # noqa: N818 - no error
    """All look-ups are done."""


class _Table(nn.Module):
    def __init__(self, number: int, look_up: Read) -> None:
        super().__init__()
        self.number, self.look_up = number, look_up

    def forward(self, ids: Tensor) -> Tensor:
        return self.look_up(self.number, ids)
