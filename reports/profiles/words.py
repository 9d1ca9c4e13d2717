"""What a profile says, in sentences."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from bench.profiles.difference import Agreement, Change, agreement, changes, explaining, gap_us
from bench.profiles.parts import Part
from bench.profiles.record import Profile
from bench.records import point_text
from reports import format as fmt

PART_NAMES: dict[Part, str] = {
    "compute": "Compute",
    "memory": "Memory",
    "communication": "Communication",
    "data": "Data",
    "outside": "Python and idle",
}
BUSY = 1.1  # times as long without the profiler as with it: no profiler makes a request faster
PARTS_NOTE = (
    "Memory: copies, casts, layout, allocation. Data: fetching the next batch; requests are made "
    "beforehand, as under the clock. Python and idle: no operator runs; a library that is not "
    "torch's, such as ONNX Runtime, is in it. The parts add up to the wall time of a request under "
    "the profiler, whose own cost is in them."
)
ROOF_NOTE = (
    "FLOPs are those of matrix products, convolutions and attention; elementwise work counts none. "
    "Bytes are inputs read once and results written once. The roofs were measured in the same "
    "process: a large float32 product, and a triad over arrays that no cache holds. So an operator "
    "passes the upper roof by computing in int8 or bfloat16 or by a better library, and the slope "
    "by data that a cache holds. Not counted: what a library of its own does, and kernels that a "
    "compiler fused."
)


def time_of(us: float) -> str:
    """A time in µs with its unit; 0 as such."""
    return fmt.quantity(us / 1e6, "s") if us else "0"


def calls_of(calls: float) -> str:
    """Calls a request, which are a mean."""
    return f"{calls:.4g}"


def about(profile: Profile) -> str:
    """What was profiled."""
    requests = "steps" if profile.cell.scenario == "train" else "requests"
    seen = " and ".join(str(arm.seen.requests) for arm in profile.arms)
    return (
        f"{profile.cell.baseline}, {profile.cell.stack} against its control, "
        f"{profile.cell.scenario} on {profile.cell.device} at {point_text(profile.point)}: "
        f"means of {seen} {requests}, the middle half by time; made {profile.made} with torch "
        f"{profile.torch}."
    )


def by_the_clock(profile: Profile) -> str:
    """What the unprofiled blocks say."""
    control, treatment = (time_of(s * 1e6) for s in profile.clock.seconds)
    gains = profile.clock.gains
    low, high = (fmt.ratio(g) for g in (min(gains), max(gains)))
    return (
        f"By the clock, without the profiler: control {control}, treatment {treatment} a request; "
        f"{_speed(agreement(profile).clock)}, {low}× to {high}× in {len(gains)} pairs of blocks."
    )


def interruptions(profile: Profile) -> str:
    """How far other work disturbed the host; "" where it did not."""
    told = []
    for arm in profile.arms:
        if arm.interrupted:
            done = "left out" if arm.left_out else "kept, with the wait, for too few others remain"
            told.append(f"{arm.interrupted} of {arm.asked} requests of {arm.name} ({done})")
    said = [f"The system gave the processor to others in {fmt.words(told)}."] if told else []
    if _busy(profile):
        said.append("By the clock requests took longer than here, so it was disturbed as well.")
    return " ".join(said)


def trust(profile: Profile) -> str:
    """Whether the profile agrees with the clock, and what to make of it."""
    found = agreement(profile)
    both = f"by the profile {_speed(found.profile)}, by the clock {_speed(found.clock)}"
    if found.verdict == "agrees":
        return f"The profile agrees with the clock: {both}."
    cost = f"{profile.peaks.operator_us:.2f} µs that the profiler costs a call of an operator"
    if found.verdict == "profiler":
        return (
            f"The profile disagrees with the clock: {both}. The {cost} explain it: without them "
            f"the profile would say {_speed(found.corrected or 1.0)}. Take the size of the gain "
            "from the clock; small operators look dearer here than they are."
        )
    advice = (
        "The host was busy with other work: believe neither ratio"
        if _busy(profile)
        else "Believe the clock, and take what is said of operators as a hint"
    )
    return (
        f"The profile disagrees with the clock: {both}. The {cost} do not explain it"
        f"{_without(found)}. {advice}; profile again while nothing else runs."
    )


def doubtful(profile: Profile) -> bool:
    """Whether the profile disagrees with the clock."""
    return agreement(profile).verdict != "agrees"


def explanation(profile: Profile) -> str:
    """The gap by the profile, and how much of it the named operators are."""
    gap, named = gap_us(profile), explaining(profile)
    walls = f"{time_of(profile.control.wall_us)} to {time_of(profile.treatment.wall_us)}"
    if not named:
        return f"Under the profiler a request goes from {walls}: there is no gap to explain."
    together = sum(change.share or 0.0 for change in named)
    return (
        f"Under the profiler a request goes from {walls}, {time_of(abs(gap))} "
        f"{'less' if gap > 0 else 'more'}. Of that gap, {fmt.percent(together)} is due to:"
    )


def named_changes(profile: Profile) -> list[tuple[str, str]]:
    """The operators that explain the gap, each with what changed."""
    return [(change.name, change_text(change)) for change in explaining(profile)]


def change_text(change: Change) -> str:
    """One operator's change."""
    share = "" if change.share is None else f", {signed_percent(change.share)} of the gap"
    calls = ""
    if any(change.calls):
        calls = f", {calls_of(change.calls[0])} → {calls_of(change.calls[1])} calls"
    control, treatment = map(time_of, change.self_us)
    return f"{control} → {treatment}{calls}{share}"


def signed_percent(share: float) -> str:
    """A share with its sign; negative where an operator works against the gap."""
    return f"{share:+.0%}".replace("-", "−")


def opening(folder: Path) -> list[tuple[str, str]]:
    """How to look at the traces elsewhere."""
    return [
        (
            "TensorBoard",
            f"tensorboard --logdir {quote(str(folder))}, then the tab PyTorch Profiler",
        ),
        (
            "Perfetto",
            "open https://ui.perfetto.dev and drop a *.pt.trace.json on it; the file stays in your "
            f"browser. They are in {folder}",
        ),
    ]


def rest_of(profile: Profile, shown: int) -> float:
    """What the changes after the first `shown` save together, in µs."""
    return sum(change.saved_us for change in changes(profile)[shown:])


def _busy(profile: Profile) -> bool:
    return any(
        seconds * 1e6 > BUSY * arm.seen.wall_us
        for seconds, arm in zip(profile.clock.seconds, profile.arms, strict=True)
    )


def _speed(ratio: float) -> str:
    return f"{fmt.ratio(ratio)}× as fast"


def _without(found: Agreement) -> str:
    if found.corrected is None:
        return ": they would be more than a request takes"
    return f": without them it would say {_speed(found.corrected)}"
