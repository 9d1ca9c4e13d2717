"""Measures the certificate of a host.

The machinery that judges techniques compares one model with a second copy of itself (A/A), and with
copies slowed down by 2, 5 and 10 %. What comes out is the false-alarm rate, the coverage of the
intervals, the noise floor and the power curve, each with its binomial interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from baselines.data.sources import cache_dir
from baselines.errors import LeanRecError
from bench.certificate import Certificate, Power, Rate, RuleRate, keep
from bench.device import Device
from bench.environment import environment
from bench.launch import run_worker
from bench.protocol import Protocol
from bench.records import CONTROL, BlockRow, Trial
from bench.rules import RULES, rate
from bench.runner import Progress
from bench.scenarios.base import all_threads
from bench.stats import Interval, ratio_interval
from bench.verdicts import ratio_verdict
from bench.worker import TrialSpec

BASELINE = 'dcnv2(dataset="planted(rows=20_000, ids=10_000)")'
INJECTED = {0: 1, 2: 4, 5: 2, 10: 2}  # percent → measured at every n-th comparison
PER_PROCESS = 20  # comparisons that one process holds, each of freshly made arms


def _numbers(percent: int, comparisons: int) -> range:
    """The comparisons with that injected slow-down.

    All are A/A: false alarms are rare, so their rate needs more comparisons than power does. A
    slow-down of δ itself is hardly ever decided, and costs the most.
    """
    return range(0, comparisons, INJECTED[percent])


Key = tuple[int, int]  # number of the comparison, percent injected


def certify(
    device: Device, comparisons: int, tell: Callable[[Progress], None] = lambda progress: None
) -> Certificate:
    """Measure the certificate of this host on `device` and keep it for later runs."""
    protocol = Protocol()
    start = time.monotonic()
    groups = math.ceil(comparisons / PER_PROCESS)
    trials: list[list[Trial]] = []
    for group in range(groups):
        mine: list[Trial] = []
        numbers = range(group * PER_PROCESS, min((group + 1) * PER_PROCESS, comparisons))
        open_keys = [
            (n, percent)
            for percent in INJECTED
            for n in _numbers(percent, comparisons)
            if n in numbers
        ]
        for process in range(max(protocol.looks)):
            if process in protocol.looks:
                open_keys = [k for k in open_keys if _verdict(mine, k, protocol) == "inconclusive"]
            if not open_keys:
                break
            share = (group * protocol.looks[0] + min(process, protocol.looks[0])) / (
                groups * protocol.looks[0]
            )
            spent = time.monotonic() - start
            left = spent / share * (1 - share) if share else 0.0
            tell(Progress(group, groups, left, f"group {group + 1}, process {process + 1}"))
            mine.append(_run(device, protocol, group, process, open_keys))
        trials.append(mine)
    made = _certificate(device, protocol, trials, comparisons, time.monotonic() - start)
    keep(made)
    return made


def _run(device: Device, protocol: Protocol, group: int, process: int, keys: list[Key]) -> Trial:
    spec = TrialSpec(
        id=f"certificate-{group}-{process}",
        mode="certificate",
        baseline="known-truths",
        stack=CONTROL,
        baseline_spec=BASELINE,
        stack_spec=CONTROL,
        device=device.name,
        scenarios=(),
        process=group * 100 + process,
        protocol=protocol,
        store=cache_dir() / "artefacts",
        comparisons=tuple(keys),
        spawned=time.time(),
    )
    log = cache_dir() / "certificates" / "worker.log"
    trial = run_worker(spec, protocol.training_timeout_seconds, log)
    if trial.end.status != "ok":
        raise LeanRecError(
            f"The certificate's worker ended with {trial.end.status}: {trial.end.cause}.",
            "There is no certificate.",
            f"See {log}, or ask 'leanrec doctor'.",
        )
    return trial


def _blocks(trial: Trial, key: Key) -> list[BlockRow]:
    number, percent = key
    return [
        row
        for row in trial.rows
        if isinstance(row, BlockRow)
        and (row.point["comparison"], row.point["injected_percent"]) == (number, percent)
    ]


def _interval(trials: list[Trial], key: Key, protocol: Protocol) -> Interval | None:
    """The interval of log(treatment ÷ control) over the processes that measured `key`."""
    logs = []
    for trial in trials:
        rows = _blocks(trial, key)
        if rows:
            sides = {
                arm: np.mean([math.log(r.value) for r in rows if r.arm == arm])
                for arm in ("control", "treatment")
            }
            logs.append(float(sides["treatment"] - sides["control"]))
    return ratio_interval(logs, protocol.level_at(len(logs))) if logs else None


def _verdict(trials: list[Trial], key: Key, protocol: Protocol) -> str:
    interval = _interval(trials, key, protocol)
    return ratio_verdict(interval, protocol.margin, "s", "lower") if interval else "inconclusive"


def _certificate(
    device: Device,
    protocol: Protocol,
    groups: list[list[Trial]],
    comparisons: int,
    seconds: float,
) -> Certificate:
    judged = {
        (n, percent): (
            _interval(groups[n // PER_PROCESS], (n, percent), protocol),
            _verdict(groups[n // PER_PROCESS], (n, percent), protocol),
        )
        for percent in INJECTED
        for n in _numbers(percent, comparisons)
    }
    same = [judged[n, 0] for n in range(comparisons)]
    covered = [i is not None and i.low <= 0 <= i.high for i, _ in same]
    alarms = [verdict in ("faster", "slower") for _, verdict in same]
    sizes = [abs(i.estimate) for i, _ in same if i is not None]
    floor = math.expm1(float(np.quantile(sizes, 0.95)))
    return Certificate(
        host=environment(device, all_threads())["host"],
        device=device.name,
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        protocol=protocol,
        budget=f"{protocol.looks[0]} to {protocol.looks[-1]} processes × {protocol.pairs} block "
        f"pairs × {protocol.block_seconds} s",
        seconds=seconds,
        false_alarms=_share(alarms),
        coverage=_share(covered),
        noise_floor={"latency": floor},
        power=[
            Power(
                injected=percent / 100,
                found=_share(
                    [judged[n, percent][1] == "slower" for n in _numbers(percent, comparisons)]
                ),
            )
            for percent in INJECTED
            if percent
        ],
        rules=[
            RuleRate(rule=rule, injected=percent / 100, different=_share(said))
            for percent in INJECTED
            for rule, said in _by_rules(groups, percent, comparisons).items()
        ],
    )


def _by_rules(groups: list[list[Trial]], percent: int, comparisons: int) -> dict[str, list[bool]]:
    """Whether each common rule says "different", comparison by comparison, of the raw timings of
    the first process, and of those of all processes pooled."""
    said: dict[str, list[bool]] = {}
    for number in _numbers(percent, comparisons):
        rows = [_blocks(trial, (number, percent)) for trial in groups[number // PER_PROCESS]]
        for scope, chosen in (("one process", rows[:1]), ("pooled", rows)):
            a, b = (
                np.concatenate([r.durations_ns for p in chosen for r in p if r.arm == arm])
                for arm in ("control", "treatment")
            )
            for name, differs in RULES.items():
                said.setdefault(f"{name}, {scope}", []).append(bool(differs(a, b)))
    return said


def _share(said: list[bool]) -> Rate:
    share, low, high = rate(sum(said), len(said))
    return Rate(rate=share, low=low, high=high, n=len(said))
