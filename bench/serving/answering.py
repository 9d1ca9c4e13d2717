"""What stands behind the queue: single requests joined to a batch, one call, its answer split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.base import Batch, scores
from bench.blocks import ArmState
from bench.device import Device
from bench.meters.clock import TALLY


def join(requests: Sequence[Batch]) -> Batch:
    """Requests of one row each as one batch."""
    return tuple(torch.cat(columns) for columns in zip(*requests, strict=True))


def split(answer: Tensor | tuple[Tensor, ...]) -> list[Batch]:
    """The answer of a batch as one answer a request, each a view of it."""
    parts = (answer,) if isinstance(answer, Tensor) else answer
    return list(zip(*(part.split(1) for part in parts), strict=True))


class Answering:
    """Answers the requests of a load by one arm; called by `bench.serving.queue.serve`.

    requests: of one row each, on the device. picks: which of them each arrival is, int [n].
    sampled: arrivals from each of which on the next batch is kept by the arm, to be verified.
    """

    def __init__(
        self,
        arm: ArmState,
        requests: Sequence[Batch],
        picks: np.ndarray,
        device: Device,
        sampled: Sequence[int] = (),
    ) -> None:
        self.arm, self.requests, self.picks = arm, requests, picks.tolist()
        self.device, self.sampled = device, sorted(sampled, reverse=True)

    def __call__(self, members: list[int]) -> list[Batch]:
        """The answer of each of `members`, complete."""
        batch = join([self.requests[self.picks[member]] for member in members])
        answer: Any = self.arm.call(*batch)
        if self.device.synchronize is not None:
            self.device.synchronize()
        answers = split(answer)
        TALLY.add([batch])
        if self.sampled and members[-1] >= self.sampled[-1]:
            self.sampled.pop()
            self.arm.keep(batch, scores(answer))
        return answers
