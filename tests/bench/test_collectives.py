from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import collectives
from bench.collectives import SHAPES, CountedGroup, Traffic
from bench.ranks import Link


class Work:
    def __init__(self, error: RuntimeError | None = None) -> None:
        self.error = error

    def wait(self) -> bool:
        if self.error:
            raise self.error
        return True


class Inner:
    """A group of `ranks` that does nothing, and notes what it was asked."""

    def __init__(self, ranks: int, error: RuntimeError | None = None) -> None:
        self.ranks, self.asked, self.error = ranks, [], error

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return self.ranks

    def __getattr__(self, name: str) -> Any:
        def collective(*arguments: Any, **options: Any) -> Work:
            self.asked.append(name)
            return Work(self.error)

        return collective


def group(ranks: int, link: Link | None = None, **more: Any) -> CountedGroup:
    return CountedGroup(Inner(ranks, **more), Traffic(), link)  # type: ignore[arg-type]


X = torch.zeros(100)  # 400 bytes
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "allreduce": ([X],),
    "allreduce_coalesced": ([X[:50], X[50:]],),
    "broadcast": ([X],),
    "allgather": ([[X[:50], X[50:]]], [X[:50]]),
    "all_gather_single": (X, X[:50]),
    "_allgather_base": (X, X[:50]),
    "reduce_scatter": ([X[:50]], [[X[:50], X[50:]]]),
    "reduce_scatter_single": (X[:50], X),
    "_reduce_scatter_base": (X[:50], X),
    "all_to_all_single": (X[:80], X, [20] * 4, [25] * 4),
    "alltoall_base": (X[:80], X, [20] * 4, [25] * 4),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_collective_is_counted_and_handed_on(name: str) -> None:
    made = group(4)
    getattr(made, name)(*ARGUMENTS[name])
    copies = 6 if "allreduce" in name else 3
    assert made.traffic.take() == Traffic(1, 400, 400 * copies / 4)
    assert made.traffic.take() == Traffic()
    assert made.inner.asked == [name]  # type: ignore[attr-defined]


def test_narrow_tensors_count_as_what_they_are() -> None:
    made = group(2)
    made.allreduce([X.bfloat16()])  # type: ignore[call-overload]
    assert made.traffic.payload == 200


def test_a_barrier_is_not_traffic() -> None:
    made = group(2)
    made.barrier()
    assert made.traffic == Traffic()


@pytest.mark.parametrize(
    ("link", "rounds", "sent", "seconds"),
    [
        (Link(seconds_a_round=0.005), 2, 1e9, 0.010),
        (Link(bytes_a_second=125e6), 2, 125e6, 1.0),
        (Link(seconds_a_round=0.1, bytes_a_second=100), 6, 50, 1.1),
    ],
)
def test_what_a_link_costs(link: Link, rounds: int, sent: float, seconds: float) -> None:
    assert link.seconds(rounds, sent) == pytest.approx(seconds)


def test_a_link_delays_work_and_not_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    slept, over = [], threading.Event()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert over.wait(60)

    monkeypatch.setattr(collectives, "time", SimpleNamespace(sleep=sleep))
    made = group(2, Link(seconds_a_round=0.1))
    works = [made.allreduce([X]) for _ in range(2)]  # type: ignore[call-overload]
    assert made.inner.asked == []
    over.set()
    for work in works:
        work.wait()
    assert slept == pytest.approx([0.2, 0.2])  # one after another, two rounds each
    assert made.inner.asked == ["allreduce"] * 2


def test_what_a_collective_gives_is_the_callers_tensor() -> None:
    value: list[Tensor] = group(2, Link()).allreduce([X]).get_future().wait()  # type: ignore[call-overload]
    assert value[0].data_ptr() == X.data_ptr()


@pytest.mark.parametrize("following", ["allreduce", "barrier"])
def test_an_error_of_the_network_ends_what_follows(following: str) -> None:
    made = group(2, Link(), error=RuntimeError("connection closed by peer"))
    made.allreduce([X]).wait()  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match="connection closed by peer"):
        getattr(made, following)([X])
