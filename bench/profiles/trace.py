"""From a trace of torch's profiler (Chrome's JSON) to what one request did, operator by operator.

At every instant of a request exactly one thing is said to happen. On a CPU: the innermost operator
of the calling thread; where it is in none, that of another thread; else nothing that torch sees. On
an accelerator: the kernel that runs, told by the operator that launched it; else nothing. So the
times told add up to the wall time.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.profiles.parts import PARTS, REQUEST, Part, part_of, shown_name
from bench.profiles.record import Kernel, MemoryPoint, Operator, Seen

_HOST = ("cpu_op", "user_annotation")
_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_DEVICE_TYPE = {"cpu": 0, "cuda": 1}  # as the trace numbers them
MOST_POINTS = 400  # of a memory curve

Event = dict[str, Any]


@dataclass(frozen=True)
class Span:
    """A stretch of time, in µs, and what went on in it."""

    start: float
    end: float
    name: str = ""


def read_trace(trace: Mapping[str, Any], device: str = "cpu") -> Seen:
    """What a request did: the mean over the middle half of those traced, by their wall time.

    device: "cpu", or "cuda", by whose kernels the time is told there. Raises ValueError where the
    trace holds no request.
    """
    timed = [e for e in trace["traceEvents"] if e.get("ph") == "X"]
    framed = [e for e in timed if (e["name"], e.get("cat")) == (REQUEST, "user_annotation")]
    if not framed:
        raise ValueError("the trace holds no request")
    windows = middle_half([_span(e) for e in framed])
    threads: dict[Any, list[Span]] = defaultdict(list)
    for e in timed:
        if e.get("cat") in _HOST and (name := shown_name(e["name"], e["cat"])):
            threads[e["tid"]].append(_span(e, name))
    if device == "cpu":
        caller = threads.get(framed[0]["tid"], [])
        others = [spans for spans in threads.values() if spans is not caller]
        lanes = [innermost(spans) for spans in (caller, *others)]
    else:
        lanes = _streams(timed)
    spent: dict[str, list[float]] = defaultdict(list)
    for window in windows:
        for span in share_out(window, lanes):
            spent[span.name].append(span.end - span.start)
    inside = {name: math.fsum(times) / len(windows) for name, times in spent.items()}
    wall = math.fsum(w.end - w.start for w in windows) / len(windows)
    operators = _operators(windows, threads.values(), inside, device == "cpu")
    return Seen(
        requests=len(windows),
        wall_us=wall,
        parts=_parts(operators, wall),
        operators=operators,
        kernels=_kernels(windows, timed),
        memory=memory_curve(trace["traceEvents"], windows[len(windows) // 2], device),
    )


def middle_half(windows: Sequence[Span]) -> list[Span]:
    """Those between the quartiles by length, shortest first."""
    ordered = sorted(windows, key=lambda w: w.end - w.start)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut]


def innermost(events: Iterable[Span]) -> list[Span]:
    """Disjoint spans of one thread's nested events, each named by the innermost one there."""
    told: list[Span] = []
    stack: list[Span] = []
    now = -math.inf

    def tell(until: float) -> None:
        nonlocal now
        if until > now:
            told.append(Span(now, until, stack[-1].name))
            now = until

    for event in sorted(events, key=lambda e: (e.start, -e.end)):
        while stack and stack[-1].end <= event.start:
            tell(stack[-1].end)
            stack.pop()
        if stack:
            tell(event.start)
        now = max(now, event.start)
        end = min(event.end, stack[-1].end) if stack else event.end  # clocks are rounded
        stack.append(replace(event, end=end))
    while stack:
        tell(stack[-1].end)
        stack.pop()
    return told


def share_out(window: Span, lanes: Iterable[Sequence[Span]]) -> list[Span]:
    """Disjoint spans inside `window`: an earlier lane goes before a later one.

    Each lane holds disjoint spans in order.
    """
    told: list[Span] = []
    free = [window]
    for lane in lanes:
        starts = [span.start for span in lane]
        rest: list[Span] = []
        for gap in free:
            at = gap.start
            for span in lane[max(0, bisect_right(starts, gap.start) - 1) :]:
                if span.start >= gap.end:
                    break
                start, end = max(span.start, at), min(span.end, gap.end)
                if end <= start:
                    continue
                if start > at:
                    rest.append(Span(at, start))
                told.append(Span(start, end, span.name))
                at = end
            if at < gap.end:
                rest.append(Span(at, gap.end))
        free = rest
    return told


def memory_curve(
    events: Iterable[Event], window: Span, device: str = "cpu"
) -> tuple[MemoryPoint, ...]:
    """Bytes in live tensors over one request, more than at its start; at most MOST_POINTS.

    Where there are more, the highest of each stretch is kept, so that the peak is.
    """
    found: list[MemoryPoint] = []
    before: float | None = None
    for e in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        facts = e["args"]
        if facts["Device Type"] != _DEVICE_TYPE[device]:
            continue
        if window.start <= e["ts"] <= window.end:
            total = facts["Total Allocated"]
            before = total - facts["Bytes"] if before is None else before
            found.append(MemoryPoint(us=e["ts"] - window.start, bytes=total - before))
    step = math.ceil(len(found) / MOST_POINTS) or 1
    parts = (found[i : i + step] for i in range(0, len(found), step))
    return tuple(max(part, key=lambda point: point.bytes) for part in parts)


def _operators(
    windows: Sequence[Span], threads: Iterable[list[Span]], inside: dict[str, float], nested: bool
) -> tuple[Operator, ...]:
    """Every operator, costliest first. nested: whether its whole time is that of its own span."""
    calls: dict[str, int] = defaultdict(int)
    whole: dict[str, list[float]] = defaultdict(list)
    for spans in threads:
        ends: dict[str, float] = {}
        for span in sorted(spans, key=lambda s: (s.start, -s.end)):
            if not any(w.start <= span.start < w.end for w in windows):
                continue
            calls[span.name] += 1
            if span.start >= ends.get(span.name, -math.inf):  # in no other of its name
                ends[span.name] = span.end
                whole[span.name].append(span.end - span.start)
    count = len(windows)
    return tuple(
        Operator(
            name=name,
            part=part_of(name),
            calls=calls[name] / count,
            self_us=inside.get(name, 0.0),
            total_us=math.fsum(whole[name]) / count if nested else inside.get(name, 0.0),
        )
        for name in sorted({*calls, *inside}, key=lambda n: (-inside.get(n, 0.0), n))
    )


def _parts(operators: Iterable[Operator], wall: float) -> dict[Part, float]:
    times: dict[Part, list[float]] = {part: [] for part in PARTS}
    for operator in operators:
        times[operator.part].append(operator.self_us)
    parts = {part: math.fsum(found) for part, found in times.items()}
    parts["outside"] += max(0.0, wall - math.fsum(parts.values()))
    return parts


def _streams(timed: Iterable[Event]) -> list[list[Span]]:
    """What ran on the accelerator, a lane for each stream, by the operators that launched it."""
    launched = {
        e["args"]["External id"]: e["name"]
        for e in timed
        if e.get("cat") == "cpu_op" and "External id" in e.get("args", {})
    }
    streams: dict[Any, list[Span]] = defaultdict(list)
    for e in timed:
        if e.get("cat") in _DEVICE:
            moved = e["cat"] != "kernel" and part_of(e["name"]) == "data"
            by = None if moved else launched.get(e.get("args", {}).get("External id"))
            streams[e["tid"]].append(_span(e, by or e["name"]))
    return [innermost(spans) for spans in streams.values()]


def _kernels(windows: Sequence[Span], timed: Iterable[Event]) -> tuple[Kernel, ...]:
    found: dict[str, list[float]] = defaultdict(list)
    for e in timed:
        if e.get("cat") in _DEVICE and any(w.start <= e["ts"] < w.end for w in windows):
            found[e["name"]].append(e["dur"])
    kernels = [
        Kernel(name=name, calls=len(times) / len(windows), us=math.fsum(times) / len(windows))
        for name, times in found.items()
    ]
    return tuple(sorted(kernels, key=lambda k: -k.us))


def _span(event: Event, name: str = "") -> Span:
    return Span(event["ts"], event["ts"] + event["dur"], name)
