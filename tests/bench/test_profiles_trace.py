"""From a trace to a request's time: it adds up, and each instant goes to one operator."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.profiles.parts import FETCH, GRAPH, REQUEST, part_of
from bench.profiles.trace import (
    MOST_POINTS,
    Span,
    innermost,
    memory_curve,
    middle_half,
    read_trace,
    share_out,
)


def event(name: str, ts: float, dur: float, cat: str = "cpu_op", tid: int = 1, **args: Any) -> dict:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


def request(ts: float, dur: float) -> dict:
    return event(REQUEST, ts, dur, "user_annotation")


def memory(ts: float, change: int, total: int, kind: int = 0) -> dict:
    facts = {"Bytes": change, "Total Allocated": total, "Device Type": kind}
    return {"ph": "i", "name": "[memory]", "ts": ts, "tid": 1, "args": facts}


NAMES = ("aten::mm", "aten::copy_", "aten::add", "gloo:all_reduce")
CUTS = st.lists(st.integers(0, 1000), max_size=8).map(sorted)


@st.composite
def nested(draw: st.DrawFn) -> list[Span]:
    """Events of one thread: each lies inside another, or beside it."""
    found = []
    for depth in range(3):
        cuts = draw(CUTS)
        parents = found if depth else [Span(0, 1000)]
        for low, high in zip(cuts[::2], cuts[1::2], strict=False):
            holder = min(
                (p for p in parents if p.start <= low < p.end), key=lambda p: p.end, default=None
            )
            if holder:
                found.append(Span(low, min(high, holder.end), NAMES[(low + depth) % len(NAMES)]))
    return found


class TestSums:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(nested(), min_size=1, max_size=2), st.integers(0, 900), st.integers(1, 500))
    def test_the_parts_add_up_to_the_wall_time(
        self, threads: list[list[Span]], start: int, wall: int
    ) -> None:
        events = [
            event(span.name, span.start, span.end - span.start, tid=tid)
            for tid, spans in enumerate(threads, 1)
            for span in spans
        ]
        seen = read_trace({"traceEvents": [request(start, wall), *events]})
        assert math.fsum(seen.parts.values()) == pytest.approx(wall)
        inside = math.fsum(o.self_us for o in seen.operators)
        assert inside + seen.outside_us == pytest.approx(wall)

    @settings(max_examples=60, deadline=None)
    @given(nested(), nested())
    def test_spans_told_are_disjoint_and_inside(self, one: list[Span], other: list[Span]) -> None:
        window = Span(100, 800)
        told = sorted(share_out(window, [innermost(one), innermost(other)]), key=lambda s: s.start)
        assert all(window.start <= s.start < s.end <= window.end for s in told)
        assert all(a.end <= b.start for a, b in pairwise(told))


def test_the_innermost_operator_has_the_time() -> None:
    told = innermost([Span(0, 10, "a"), Span(2, 5, "b"), Span(3, 4, "c"), Span(12, 13, "d")])
    assert [(s.start, s.end, s.name) for s in told] == [
        (0, 2, "a"), (2, 3, "b"), (3, 4, "c"), (4, 5, "b"), (5, 10, "a"), (12, 13, "d"),
    ]  # fmt: skip


def test_a_child_that_rounding_lets_end_late_is_cut() -> None:
    told = innermost([Span(0, 10, "a"), Span(2, 10.001, "b"), Span(10.0, 11, "c")])
    assert [(s.start, s.end, s.name) for s in told] == [(0, 2, "a"), (2, 10, "b"), (10, 11, "c")]


def test_parts_calls_and_times_of_a_known_request() -> None:
    events = [
        request(0, 100),
        event(FETCH, 1, 4, "user_annotation"),
        event("aten::linear", 10, 40),
        event("aten::addmm", 12, 36),
        event("aten::copy_", 14, 6),
        event("aten::relu", 60, 10),
        event("c10d::allreduce_", 80, 5),
        event("Optimizer.step#Adam.step", 50, 30, "user_annotation"),  # frames others only
    ]
    seen = read_trace({"traceEvents": events})
    assert seen.parts == {
        "compute": 44, "memory": 6, "communication": 5, "data": 4, "outside": 41,
    }  # fmt: skip
    assert seen.wall_us == 100
    own = {o.name: (o.calls, o.self_us, o.total_us) for o in seen.operators}
    assert own["aten::addmm"] == (1, 30, 36)
    assert own["aten::linear"] == (1, 4, 40)
    assert "Optimizer.step#Adam.step" not in own


def test_the_caller_goes_before_other_threads_which_fill_its_gaps() -> None:
    events = [
        request(0, 100),
        event("aten::mm", 0, 40),
        event("aten::add", 20, 50, tid=2),
    ]
    seen = read_trace({"traceEvents": events})
    own = {o.name: o.self_us for o in seen.operators}
    assert own == {"aten::mm": 40, "aten::add": 30}
    assert seen.outside_us == 30


def test_an_operator_inside_one_of_its_name_counts_once_in_whole() -> None:
    events = [request(0, 100), event("aten::to", 0, 50), event("aten::to", 10, 20)]
    (operator,) = read_trace({"traceEvents": events}).operators
    assert (operator.calls, operator.self_us, operator.total_us) == (2, 50, 50)


def test_means_are_of_the_middle_half_of_the_requests() -> None:
    walls = [1, 10, 10, 10, 10, 10, 10, 500]
    events = [request(1000 * i, wall) for i, wall in enumerate(walls)]
    seen = read_trace({"traceEvents": events})
    assert (seen.requests, seen.wall_us) == (4, 10)
    assert len(middle_half([Span(0, 1)])) == 1


def test_compiled_graphs_are_one_operator_and_what_surrounds_them_is_python() -> None:
    events = [
        request(0, 100),
        event("TorchDynamo Cache Lookup", 0, 5),
        event("Torch-Compiled Region: 0/0", 5, 90),
        event("## Call CompiledFxGraph fabc123 ##", 20, 60, "user_annotation"),
    ]
    seen = read_trace({"traceEvents": events})
    assert seen.parts["compute"] == 60
    assert seen.parts["outside"] == 40
    assert GRAPH in {o.name for o in seen.operators}


def test_on_an_accelerator_kernels_have_the_time_and_operators_their_names() -> None:
    events = [
        request(0, 100),
        event("aten::mm", 0, 5, **{"External id": 7}),
        event("sgemm_128", 10, 60, "kernel", tid=77, **{"External id": 7}),
        event("Memcpy HtoD (Pageable -> Device)", 2, 3, "gpu_memcpy", tid=77),
        event("ncclDevKernel_AllReduce", 60, 20, "kernel", tid=78),
    ]
    seen = read_trace({"traceEvents": events}, "cuda")
    assert {o.name: o.self_us for o in seen.operators}["aten::mm"] == 60
    assert seen.parts["data"] == 3
    assert seen.parts["communication"] == 10  # what the product does not cover
    assert seen.parts["outside"] == 27
    assert [k.name for k in seen.kernels][:2] == ["sgemm_128", "ncclDevKernel_AllReduce"]


def test_the_memory_curve_begins_at_the_request() -> None:
    events = [memory(5, 100, 100), memory(12, 50, 150), memory(15, 30, 180), memory(18, -80, 100),
              memory(16, 9, 9, kind=1)]  # fmt: skip
    curve = memory_curve(events, Span(10, 20))
    assert [(p.us, p.bytes) for p in curve] == [(2, 50), (5, 80), (8, 0)]


def test_a_long_memory_curve_is_thinned_and_keeps_its_peak() -> None:
    events = [memory(i, 1, 5000 if i == 777 else i) for i in range(4000)]
    curve = memory_curve(events, Span(0, 4000))
    assert len(curve) <= MOST_POINTS
    assert max(p.bytes for p in curve) == 5001


def test_a_trace_without_a_request_is_refused() -> None:
    with pytest.raises(ValueError, match="no request"):
        read_trace({"traceEvents": [event("aten::mm", 0, 5)]})


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("aten::addmm", "compute"), ("aten::embedding", "compute"), ("my::kernel", "compute"),
        ("aten::_to_copy", "memory"), ("aten::empty", "memory"), ("aten::view", "memory"),
        ("Memcpy DtoH", "memory"), ("Memcpy HtoD (Pinned -> Device)", "data"),
        ("nccl:all_reduce", "communication"), ("c10d::allreduce_", "communication"),
        ("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", "data"),
        ("TorchDynamo Cache Lookup", "outside"),
    ],
)  # fmt: skip
def test_an_operator_has_its_part(name: str, part: str) -> None:
    assert part_of(name) == part
