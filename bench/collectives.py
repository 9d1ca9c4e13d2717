"""Counts what ranks send each other, and makes it take as long as on a slower link.

Every collective of torch.distributed, whoever calls it, passes through the process group. The one
here hands each to the group that does it, and notes the tensors that it was given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C import _distributed_c10d as c10d
from torch.futures import Future

from bench.ranks import Link

TIMEOUT = timedelta(minutes=30)  # of one collective: the others wait while the first rank validates
BACKEND = "leanrec"


@dataclass
class Traffic:
    """What a rank has given to collectives since the last `take`.

    payload: bytes of the tensors that come together. sent: bytes that a rank puts on the wire for
    them, the mean over ranks, by the algorithms that `SHAPES` names.
    """

    collectives: int = 0
    payload: int = 0
    sent: float = 0.0

    def take(self) -> Traffic:
        """What was counted, and start anew."""
        taken = Traffic(self.collectives, self.payload, self.sent)
        self.collectives, self.payload, self.sent = 0, 0, 0.0
        return taken


@dataclass(frozen=True)
class Shape:
    """What a collective over n ranks costs. whole: which argument holds all that comes together.
    copies: of it, divided by n, that a rank sends. rounds: messages that wait for each other."""

    whole: int
    copies: Callable[[int], int]
    rounds: Callable[[int], int]


_REDUCE = Shape(0, lambda n: 2 * (n - 1), lambda n: 2 * (n - 1))  # ring: scatter, then gather
_GATHER = Shape(0, lambda n: n - 1, lambda n: n - 1)  # ring
_SCATTER = Shape(1, lambda n: n - 1, lambda n: n - 1)  # ring
_SPREAD = Shape(0, lambda n: n - 1, lambda n: math.ceil(math.log2(n)))  # binomial tree
_EXCHANGE = Shape(1, lambda n: n - 1, lambda n: n - 1)  # each rank with each other
SHAPES = {
    "allreduce": _REDUCE,
    "allreduce_coalesced": _REDUCE,
    "broadcast": _SPREAD,
    "allgather": _GATHER,
    "all_gather_single": _GATHER,
    "_allgather_base": _GATHER,
    "reduce_scatter": _SCATTER,
    "reduce_scatter_single": _SCATTER,
    "_reduce_scatter_base": _SCATTER,
    "all_to_all_single": _EXCHANGE,
    "alltoall_base": _EXCHANGE,
}


class CountedGroup(dist.ProcessGroup):
    """A process group that counts, waits for the link and has `inner` do the work.

    With a link, collectives of a group run one after another on a thread; without one, as `inner`
    runs them.
    """

    def __init__(self, inner: dist.ProcessGroup, traffic: Traffic, link: Link | None) -> None:
        super().__init__(inner.rank(), inner.size())  # type: ignore[call-arg]
        self.inner, self.traffic, self.link = inner, traffic, link
        self.thread = ThreadPoolExecutor(1) if link else None
        self.failure: RuntimeError | None = None

    def getBackendName(self) -> str:  # noqa: N802 - torch's name
        """What torch calls this kind of group."""
        return BACKEND

    def barrier(self, *arguments: Any, **options: Any) -> Any:
        """Neither counted nor delayed: only measurements call it."""
        self._must_work()
        return self.inner.barrier(*arguments, **options)

    def _must_work(self) -> None:
        """Raises what went wrong on the thread: torch's waiting for a future does not."""
        if self.failure is not None:
            raise self.failure

    def _pass(self, name: str, *arguments: Any, **options: Any) -> Any:
        self._must_work()
        shape, ranks = SHAPES[name], self.size()
        payload = sum(tensor.nbytes for tensor in _tensors(arguments[shape.whole]))
        sent = payload * shape.copies(ranks) / ranks
        self.traffic.collectives += 1
        self.traffic.payload += payload
        self.traffic.sent += sent
        call = partial(getattr(self.inner, name), *arguments, **options)
        if self.link is None or self.thread is None:
            return call()
        future: Future[Any] = Future()
        seconds = self.link.seconds(shape.rounds(ranks), sent)
        self.thread.submit(self._late, call, seconds, future, arguments[0])
        return c10d._create_work_from_future(future)  # type: ignore[attr-defined]

    def _late(
        self, call: Callable[[], Any], seconds: float, future: Future[Any], result: Any
    ) -> None:
        """Do the work after the link's time, and tell those who wait for it."""
        time.sleep(seconds)
        try:
            call().wait()
        except RuntimeError as error:
            self.failure = error
        future.set_result(result)


def _counted(name: str) -> Callable[..., Any]:
    def collective(self: CountedGroup, *arguments: Any, **options: Any) -> Any:
        return self._pass(name, *arguments, **options)

    return collective


for _name in SHAPES:
    setattr(CountedGroup, _name, _counted(_name))


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    else:
        for part in given:
            yield from _tensors(part)


def join_group(
    device: torch.device, meeting: str, rank: int, ranks: int, link: Link | None
) -> Traffic:
    """Enter the process group of all ranks; gloo on a CPU, NCCL on CUDA. Returns what counts it.

    meeting: a file that all ranks see, and that is not there yet. No port is listened on for it.
    """
    traffic = Traffic()

    def create(given: Any, _: Any) -> dist.ProcessGroup:
        store, place, size = given.store, given.group_rank, given.group_size
        if device.type == "cuda":
            kind = dist.ProcessGroup.BackendType.NCCL
            options = dist.ProcessGroupNCCL.Options()
            backend: Any = dist.ProcessGroupNCCL(store, place, size, options)
        else:
            kind = dist.ProcessGroup.BackendType.GLOO
            backend = dist.ProcessGroupGloo(store, place, size, TIMEOUT)
        inner = dist.ProcessGroup(store, place, size)
        counted = CountedGroup(inner, traffic, link)
        for group in (inner, counted):  # torch looks up name and backend in either
            group._register_backend(device, kind, backend)
            group._set_default_backend(kind)
            group._set_group_name(given.group_id)
        return counted

    dist.Backend.register_backend(BACKEND, create, extended_api=True, devices=[device.type])
    dist.init_process_group(
        BACKEND, init_method=f"file://{meeting}", rank=rank, world_size=ranks, timeout=TIMEOUT
    )
    return traffic
