"""The queue and the search for a rate, against queueing theory in simulated time, and in real."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from simulated import SimulatedClock, Work

from bench.blocks import ArmState
from bench.device import get_device
from bench.meters.clock import quiet
from bench.serving.answering import Answering, join, split
from bench.serving.arms import ServedArms
from bench.serving.queue import Policy, Served, WallClock, poisson, serve
from bench.serving.search import (
    Goal,
    RateSearch,
    bearable,
    fewest,
    probe,
    requests_for,
    search_in_turn,
)
from bench.stats import bounding_rank

MS = 1_000_000
ALONE = Policy(max_batch=1, max_delay=0, max_queue=10**6)


@pytest.fixture(autouse=True, scope="module")
def no_collections() -> Iterator[None]:
    """A simulated load takes less than the collection that precedes a real one."""
    with quiet():
        yield


def simulate(arrivals: np.ndarray, fixed: int, policy: Policy, each: int = 0) -> Served:
    clock = SimulatedClock(time=17)
    return serve(arrivals, Work(clock, fixed, each), policy, clock)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_mean_wait_is_that_of_pollaczek_and_khinchine(load: float) -> None:
    service = MS
    served = simulate(poisson(load * 1000, 100_000, [1]), service, ALONE)
    assert (served.compute_time == service).all()
    mean = load * service / (2 * (1 - load))  # M/D/1
    assert served.queue_time.mean() == pytest.approx(mean, rel=0.06)
    assert (served.queue_time > 0).mean() == pytest.approx(load, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_the_largest_rate_is_that_at_which_the_tail_of_m_d_1_meets_the_sla(load: float) -> None:
    service, rate = MS, load * 1000
    long = simulate(poisson(rate, 200_000, [2]), service, ALONE)
    goal = Goal(int(np.percentile(long.latency, 99)), 99.0, 8_000)
    clock = SimulatedClock()
    answer = Work(clock, service)
    found = []
    for repeat in range(3):
        search = RateSearch(900.0, 50.0)

        def met(arm: int, rate: float, turn: int, repeat: int = repeat) -> bool:
            return goal.met_by(probe(rate, answer, goal, ALONE, clock, [repeat, turn]))

        search_in_turn([search], met, np.random.default_rng(0))
        found.append(search.found)
    assert 0.9 * rate < np.mean(found) < 1.02 * rate  # what a bound grants is less
    assert max(found) / min(found) < 1.1


def test_arms_are_asked_in_turn_with_the_same_numbers() -> None:
    searches = [RateSearch(100.0, 1.0), RateSearch(100.0, 1.0)]
    asked: list[tuple[int, int]] = []

    def met(arm: int, rate: float, turn: int) -> bool:
        asked.append((turn, arm))
        return rate <= (70, 333)[arm]

    search_in_turn(searches, met, np.random.default_rng(0))
    assert [s.found for s in searches] == [pytest.approx(c, rel=0.03) for c in (70, 333)]
    assert [turn for turn, _ in asked] == sorted(turn for turn, _ in asked)
    both = [turn for turn, _ in asked if asked.count((turn, 0)) and asked.count((turn, 1))]
    assert all(both.count(turn) == 2 for turn in both)
    assert len(both) > 6


@given(capacity=st.floats(0.5, 1e6), start=st.floats(1, 1e5))
def test_a_search_finds_a_sharp_edge_wherever_it_begins(capacity: float, start: float) -> None:
    search = RateSearch(start, start / 100)
    for _ in range(200):
        if search.done:
            break
        search.tell(search.rate <= capacity)
    if capacity < start / 100:
        assert search.found == 0
    else:
        assert capacity / 1.031 <= search.found <= capacity


def test_one_failed_probe_does_not_settle_a_rate() -> None:
    search = RateSearch(100.0, 1.0)
    for met in (True, False):
        search.tell(met)
        assert (search.rate, search.low, search.high) == (100.0, 0.0, math.inf)
    search.tell(True)
    assert search.low == 100.0


def test_a_goal_no_rate_meets_is_found_out_at_the_floor() -> None:
    clock = SimulatedClock()
    goal = Goal(MS, 99.0, 1000)
    search = RateSearch(100.0, 10.0)
    asked = 0
    while not search.done:
        shown = probe(search.rate, Work(clock, 2 * MS), goal, ALONE, clock, [asked])
        assert goal.bound(shown) > goal.sla
        search.tell(goal.met_by(shown))
        asked += 1
    assert search.found == 0
    assert search.high == 10.0
    assert clock.time < 60 * 1e9  # probes that cannot be met any more were left


@pytest.mark.parametrize("percentile", [50.0, 90.0, 95.0, 99.0])
def test_a_probe_has_the_requests_that_its_percentile_needs(percentile: float) -> None:
    n = fewest(percentile)
    assert bounding_rank(n, percentile) == 1
    assert bounding_rank(n - 1, percentile) == 0
    goal = Goal(MS, percentile, requests_for(percentile))
    assert n < goal.requests < 2 * n
    assert 0 <= goal.tolerated < goal.requests * (1 - percentile / 100)


def test_a_slow_server_is_judged_by_the_percentile_that_it_can_bear() -> None:
    assert bearable(99.0, rate=1000, seconds=2) == 99
    assert bearable(99.0, rate=100, seconds=2) == 95
    assert bearable(90.0, rate=100, seconds=2) == 90
    assert bearable(99.0, rate=0.1, seconds=2) == 50


arrival_times = st.lists(st.integers(0, 50), min_size=1, max_size=40).map(
    lambda gaps: np.cumsum(gaps).astype(np.int64)
)


@given(
    arrivals=arrival_times,
    max_batch=st.integers(1, 5),
    max_delay=st.integers(0, 60),
    spare=st.integers(0, 10),
    fixed=st.integers(1, 80),
    each=st.integers(0, 10),
)
def test_every_request_is_answered_in_order_or_shed_by_a_full_queue(
    arrivals: np.ndarray, max_batch: int, max_delay: int, spare: int, fixed: int, each: int
) -> None:
    policy = Policy(max_batch, max_delay, max_batch + spare)
    served = simulate(arrivals, fixed, policy, each)
    assert len(served.done) == len(arrivals)
    assert int(served.batches.sum()) == int(served.answered.sum())
    assert served.batches.max() <= max_batch
    taken = served.taken[served.answered]
    assert (np.diff(taken) >= 0).all()  # first come, first served
    assert (served.queue_time >= 0).all()
    starts, rows = np.unique(taken, return_counts=True)
    ends = starts + fixed + each * rows
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))  # one at a time
    assert (served.compute_time == np.repeat(ends - starts, rows)).all()
    for place in np.flatnonzero(~served.answered):
        came = arrivals[place]
        earlier = np.arange(len(arrivals)) < place
        waiting = served.answered & earlier & (served.taken > came)
        assert waiting.sum() >= policy.max_queue - max_batch


@given(arrivals=arrival_times, max_batch=st.integers(1, 5), max_delay=st.integers(0, 60))
def test_a_batch_leaves_when_it_is_full_or_its_first_has_waited(
    arrivals: np.ndarray, max_batch: int, max_delay: int
) -> None:
    served = simulate(arrivals, 7, Policy(max_batch, max_delay, 10**6))
    starts = np.unique(served.taken)
    free = [0, *(starts[:-1] + 7)]
    for start, idle in zip(starts, free, strict=True):
        members = served.arrived[served.taken == start]
        full = members[-1] if len(members) == max_batch else math.inf
        assert start == max(idle, min(members[0] + max_delay, full))


def test_a_full_queue_sheds_and_what_it_sheds_is_counted() -> None:
    arrivals = np.arange(100, dtype=np.int64) * 10
    served = simulate(arrivals, 1000, Policy(max_batch=2, max_delay=0, max_queue=4))
    assert served.shed_share == pytest.approx(1 - served.answered.sum() / 100)
    assert 0.9 < served.shed_share < 0.96


def test_a_queue_is_idle_again_when_its_backlog_is_answered() -> None:
    burst = np.arange(100, dtype=np.int64) * MS // 2  # twice what one server of 1 ms can do
    calm = burst[-1] + MS // 2 + np.arange(200, dtype=np.int64) * 2 * MS
    end = int(burst[-1])
    served = simulate(np.concatenate([burst, calm]), MS, ALONE)
    backlog = 50 * MS
    assert served.idle_after(end) - end == pytest.approx(2 * backlog, rel=0.05)  # 1 / (1 − 0.5)
    assert served.idle_after(0) < MS


def test_what_is_lost_is_left_and_counts_as_not_answered() -> None:
    arrivals = np.arange(50, dtype=np.int64)
    clock = SimulatedClock()
    served = serve(arrivals, Work(clock, 100), ALONE, clock, lambda members, done: done > 1000)
    assert 0 < served.answered.sum() < 15
    assert not Goal(10**9, 90.0, 40).met_by(served)


def test_one_seed_gives_the_same_gaps_at_every_rate() -> None:
    slow, fast = poisson(10, 1000, [3, 4]), poisson(1000, 1000, [3, 4])
    assert np.allclose(slow, fast * 100.0, atol=100)
    assert not np.array_equal(slow, poisson(10, 1000, [3, 5]))
    gaps = np.diff(poisson(1000, 100_000, [1])) / 1e9
    assert gaps.mean() == pytest.approx(1e-3, rel=0.02)
    assert gaps.std() == pytest.approx(1e-3, rel=0.02)  # exponential


def test_requests_are_joined_and_their_answers_split_back() -> None:
    requests = [(torch.tensor([[k, -k]]), torch.tensor([float(k)])) for k in range(10)]
    arm = ArmState("control", lambda ids, x: (ids[:, 0] + x, ids))
    picks = np.array([3, 1, 4, 1, 5])
    answering = Answering(arm, requests, picks, get_device("cpu"), sampled=[2])
    for members in ([0, 1], [2, 3, 4]):
        answers = answering(members)
        for member, (score, ids) in zip(members, answers, strict=True):
            k = picks[member]
            assert score.tolist() == [2 * k]
            assert ids.tolist() == [[k, -k]]
    (sample,) = arm.sampled
    assert sample.rows.tolist() == [8, 2, 10]
    assert torch.equal(sample.batch[0], join([requests[k] for k in (4, 1, 5)])[0])
    assert [len(part) for (part,) in split(torch.zeros(3, 2))] == [1, 1, 1]


def test_of_a_load_that_is_shed_but_for_its_beginning_an_answer_is_kept() -> None:
    def call(ids: torch.Tensor) -> torch.Tensor:
        return ids.float()

    served = ServedArms(
        (call, call), [(torch.tensor([1]),)], Policy(1, 0, 1), get_device("cpu"),
        np.random.default_rng(0),
    )  # fmt: skip
    at_once = np.zeros(1000, np.int64)
    assert served.serve(0, at_once, at_once).shed_share > 0.9
    assert served.arms[0].sampled


@pytest.mark.slow
def test_in_real_time_a_server_that_sleeps_waits_and_batches_as_it_should() -> None:
    def sleeps(members: list[int]) -> None:
        time.sleep(0.005)

    served = serve(poisson(100, 150, [5]), sleeps, ALONE, WallClock())
    assert served.answered.all()
    service = np.median(served.compute_time)
    assert served.compute_time.min() >= 5 * MS
    assert service < 50 * MS
    free = np.maximum(served.arrived[1:], served.done[:-1])  # when each could be taken
    idle = served.taken[1:] - free
    assert idle.min() >= 0
    assert np.median(idle) < service  # single ones may be as late as a loaded host makes them
    flood = serve(poisson(1000, 300, [6]), sleeps, Policy(8, 2 * MS, 64), WallClock())
    assert flood.batches.mean() > 4
    assert all(a <= b for a, b in pairwise(flood.taken[flood.answered]))
    assert flood.late.min() >= 0
