"""What a whole report holds, in its order."""

from __future__ import annotations

from bench.run import Run
from reports import pages, serving, views
from reports.pages import Report, Section
from reports.profiles.page import profiles_of


def report(run: Run) -> Report:
    """Everything that a report of `run` says, warnings first."""
    sections = [
        Section("Warnings", pages.warning_blocks(run)),
        *pages.answer_sections(run),
        Section("Verdicts", pages.verdict_blocks(run)),
        Section("Quality against speed", views.quality_speed_blocks(run)),
        Section("Stacks", pages.stack_blocks(run)),
        Section("Effects", pages.effect_blocks(run)),
        Section("Quality by segment", pages.segment_blocks(run)),
        *serving.sections(run, only_planned=True),
        *pages.cost_sections(run),
        *profiles_of(run),
        *pages.provenance_sections(run),
    ]
    kept = tuple(section for section in sections if section.blocks)
    return Report(f"LeanRec report: {run.plan.suite}", kept)
