"""The profiles of a run as sections of a page. They are files from outside: text, never code."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from shlex import quote

from baselines.errors import LeanRecError
from bench.profiles.record import FILE, Profile, folder_in, read_profile
from bench.records import CONTROL
from bench.run import Run
from reports import format as fmt
from reports.pages import Block, Heading, Items, Picture, Section, Table, Text
from reports.profiles import figures, tables, words

TIMED = ("offline", "single-stream", "train")  # of the scenarios that come with the suite


def profile_sections(run: Run) -> tuple[Section, ...]:
    """A section for each profiled cell of the run; what to type where there is none."""
    return profiles_of(run) or (Section("Profile", (Text(_how_to(run)),)),)


def profiles_of(run: Run) -> tuple[Section, ...]:
    """A section for each profiled cell of the run."""
    sections = []
    for cell in (p.cell for p in run.plan.cells if not p.skip):
        folder = folder_in(run.path, cell)
        if not (folder / FILE).exists():
            continue
        title = f"Profile: {cell.baseline} × {cell.stack} × {cell.scenario} on {cell.device}"
        try:
            profile = read_profile(folder)
            if profile.cell != cell:
                raise LeanRecError(
                    f"The profile {folder / FILE} is of another cell, {profile.cell.id}.",
                    "It is left out; nothing else is affected.",
                    "Make it anew with leanrec profile, or delete its folder.",
                )
        except LeanRecError as error:
            sections.append(Section(title, (Items((("", str(error)),), warning=True),)))
        else:
            sections.append(Section(title, profile_blocks(profile, folder)))
    return tuple(sections)


def profile_blocks(profile: Profile, folder: Path) -> tuple[Block, ...]:
    """Everything that a profile says."""
    blocks: list[Block] = [
        Text(words.about(profile)),
        Text(words.by_the_clock(profile)),
        *_trust(profile),
        Heading("Why"),
        Text(words.explanation(profile)),
    ]
    if named := words.named_changes(profile):
        blocks.append(Items(tuple(named)))
    blocks += [
        Picture(
            partial(figures.waterfall, profile),
            "From the control's time to the treatment's, operator by operator; the numbers are in "
            "the table below.",
        ),
        Table(tables.difference_table(profile)),
        Heading("Where a request's time goes"),
        Picture(
            partial(figures.parts, profile),
            "The parts of a request's time in both arms; the numbers are in the table below.",
        ),
        Table(tables.parts_table(profile)),
        Text(words.PARTS_NOTE),
        Heading("Roofline"),
        *_roofline(profile),
        Heading("Memory"),
        *_memory(profile),
        Heading("Operators and kernels"),
    ]
    for arm in profile.arms:
        blocks.append(Table(tables.operators_table(arm), f"{arm.name}: operators", True))
        kernels = tables.kernels_table(arm)
        if not kernels.empty:
            blocks.append(Table(kernels, f"{arm.name}: kernels", True))
    if profile.cell.device == "cpu":
        blocks.append(Text("On a CPU an operator is its own kernel: there is no other to list."))
    blocks += [Heading("The traces"), Items(tuple(words.opening(folder)))]
    return tuple(blocks)


def _trust(profile: Profile) -> list[Block]:
    found = [t for t in (words.trust(profile), words.interruptions(profile)) if t]
    if words.doubtful(profile):
        return [Items(tuple(("", text) for text in found), warning=True)]
    return [Text(text) for text in found]


def _roofline(profile: Profile) -> list[Block]:
    table = tables.roofline_table(profile)
    if table.empty:
        return [Text("No heavy operator's work could be counted.")]
    picture = Picture(
        partial(figures.roofline, profile),
        "The heaviest operators by FLOP/s and FLOP per byte under the measured roofs; the numbers "
        "are in the table below.",
    )
    return [picture, Table(table), Text(words.ROOF_NOTE)]


def _memory(profile: Profile) -> list[Block]:
    peaks = [
        (arm.name, max((p.bytes for p in arm.seen.memory), default=0.0)) for arm in profile.arms
    ]
    told = fmt.words([f"{fmt.quantity(peak, 'B')} in {name}" for name, peak in peaks])
    text = Text(f"At most, in live tensors and more than when the request came in: {told}.")
    if not any(arm.seen.memory for arm in profile.arms):
        return [Text("No tensor was allocated by torch.")]
    alternative = "Bytes in live tensors over one request of each arm."
    return [text, Picture(partial(figures.memory, profile), alternative)]


def _how_to(run: Run) -> str:
    timed = [
        p.cell
        for p in run.plan.cells
        if not p.skip and p.cell.stack != CONTROL and p.cell.scenario in TIMED
    ]
    if not timed:
        return "No cell selected here can be profiled: none is timed by paired blocks."
    folder = quote(str(run.path))
    plugins = "".join(f" --plugin {quote(str(path))}" for path in run.plan.plugins)
    return (
        "No cell selected here was profiled. To see why one is faster or slower, type: "
        f"leanrec profile --diff {timed[0].id} --run {folder}{plugins}"
    )
