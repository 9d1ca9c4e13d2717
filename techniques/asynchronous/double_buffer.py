"""A predictor in two copies: one answers while the other takes new weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

DENSE = 0.5  # of a tensor's rows: where more have changed, all are carried, without their numbers


@dataclass(frozen=True)
class Delta:
    """What differs between two states of a module, by the names of its tensors.

    rows: which rows of a tensor, int64 [k], and their new values [k, …]. whole: new tensors.
    """

    rows: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    whole: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def between(cls, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> Delta:
        """The delta that makes `new` of `old`, which have the same names and shapes. Its rows are
        copies; its whole tensors are those of `new`."""
        rows, whole = {}, {}
        for name, value in new.items():
            changed = (value != old[name]).reshape(max(len(value), 1) if value.dim() else 1, -1)
            touched = changed.any(1).nonzero().squeeze(1)
            if not len(touched):
                continue
            if value.dim() > 1 and len(touched) <= DENSE * len(value):
                rows[name] = touched, value[touched]
            else:
                whole[name] = value
        return cls(rows, whole)

    @property
    def nbytes(self) -> int:
        """Bytes of all that it carries, the numbers of rows included."""
        carried = [*self.whole.values(), *(part for pair in self.rows.values() for part in pair)]
        return sum(part.nbytes for part in carried)


class DoubleBuffered(nn.Module):
    """Answers by one of two copies of a predictor, and gives new weights to the other.

    A change is written to the copy that does not answer; then the two change places, which is one
    assignment: no call waits, and none sees weights of which a part is new. Whoever is still in a
    call that began before an exchange must have left it before the next write. Answers after it
    are to the bit those of the new weights.
    """

    def __init__(self, predictor: nn.Module) -> None:
        """predictor: left alone; both copies have weights of their own."""
        super().__init__()
        self.copies = nn.ModuleList([copy.deepcopy(predictor), copy.deepcopy(predictor)])
        self._turn = 0
        self._owed = Delta()  # where the copy that does not answer is behind the other

    @property
    def serving(self) -> nn.Module:
        """The copy that answers."""
        return self.copies[self._turn]

    def forward(self, *request: Tensor) -> Any:
        """Takes and gives what the predictor does."""
        return self.serving(*request)

    def swap(self, state: Mapping[str, Tensor]) -> None:
        """Answer by `state` from here on: the predictor's whole state, by its names."""
        self.update(Delta(whole=state))

    def update(self, delta: Delta) -> None:
        """Answer from here on by the weights that answer now, with `delta` applied."""
        self.write(delta)
        self.exchange()

    def write(self, delta: Delta) -> None:
        """The first half of `update`, which may take its time: answers are as before."""
        standby = self.copies[1 - self._turn].state_dict()
        current = self.serving.state_dict()
        with torch.no_grad():
            for name in self._owed.whole:
                standby[name].copy_(current[name])
            for name, (rows, _) in self._owed.rows.items():
                standby[name].index_copy_(0, rows, current[name][rows])
            for name, tensor in delta.whole.items():
                standby[name].copy_(tensor)
            for name, (rows, values) in delta.rows.items():
                standby[name].index_copy_(0, rows, values)
        self._owed = delta

    def exchange(self) -> None:
        """The second half of `update`."""
        self._turn = 1 - self._turn
