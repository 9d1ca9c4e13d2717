"""How a run stands against limits: in words, and as JUnit XML for continuous integration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from bench.limits import Finding
from bench.records import CONTROL, write_atomically
from bench.run import Run
from reports import format as fmt

_NAMES = {
    "max_quality_loss": "quality loss",
    "min_speedup": "speed-up",
    "max_latency": "latency",
    "max_memory": "memory",
    "max_preparation": "preparation",
}


def sentence(finding: Finding) -> str:
    """For example ``dcnv2 × bf16, offline batch=512: speed-up 1.15× (bound 1.12×) of at least
    1.20×: broken``."""
    where = " ".join(filter(None, (finding.scenario, finding.point)))
    value, bound, allowed = (
        _figure(finding, x) for x in (finding.value, finding.bound, finding.allowed)
    )
    side = "at least" if finding.limit == "min_speedup" else "at most"
    what = finding.metric if finding.limit == "max_latency" else _NAMES[finding.limit]
    return (
        f"{finding.baseline} × {finding.stack}, {where}: {what} {value} (bound {bound}), "
        f"{side} {allowed} asked for: {finding.state}"
    )


def distance_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """How far every finding that is not met is beyond its limit, by what came nearest to it."""
    return pd.DataFrame(
        [
            {
                "Baseline": f.baseline,
                "Stack": f.stack,
                "Device": f.device,
                "Limit": _NAMES[f.limit],
                "Where": " ".join(filter(None, (f.scenario, f.metric, f.point))),
                "Measured": _figure(f, f.value),
                "Bound": _figure(f, f.bound),
                "Asked for": _figure(f, f.allowed),
                "Bound beyond the limit": fmt.percent(f.distance),
                "State": f.state,
            }
            for f in findings
            if f.state != "met" and f.stack != CONTROL
        ]
    )


def junit(run: Run, findings: Sequence[Finding]) -> str:
    """A test case for each finding; those that are not met are failures. Skipped cells are skipped
    cases, and what voided a cell is an error."""
    suite = ElementTree.Element("testsuite", name=_xml(f"leanrec {run.plan.suite}"))
    for f in findings:
        where = ".".join(filter(None, (f.scenario, f.point, f.device, f.metric)))
        case = _case(suite, f.baseline, f.stack, f"{where}.{f.limit}")
        if f.state != "met":
            failure = ElementTree.SubElement(case, "failure", type=f.state)
            failure.set("message", _xml(sentence(f)))
    for planned in run.plan.cells:
        if planned.skip:
            cell = planned.cell
            case = _case(suite, cell.baseline, cell.stack, f"{cell.scenario}.{cell.device}")
            ElementTree.SubElement(case, "skipped", message=_xml(planned.skip))
    for line in run.failures:
        case = ElementTree.SubElement(suite, "testcase", classname="run", name=_xml(line))
        ElementTree.SubElement(case, "error", message=_xml(line))
    for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"),
                      ("skipped", "skipped")):  # fmt: skip
        suite.set(name, str(sum(1 for _ in suite.iter(tag))))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def write_junit(run: Run, findings: Sequence[Finding], out: Path) -> Path:
    """Write ``gate.xml`` in folder `out`. Raises LeanRecError where it cannot be written."""
    path = out / "gate.xml"
    write_atomically(path, junit(run, findings))
    return path


def _case(suite: ElementTree.Element, baseline: str, stack: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", classname=_xml(f"{baseline}.{stack}"), name=_xml(name)
    )


def _figure(finding: Finding, value: float) -> str:
    match finding.limit:
        case "min_speedup":
            return f"{fmt.ratio(value)}×"
        case "max_quality_loss":
            return fmt.number(value)
    return fmt.quantity(value, finding.unit)


def _xml(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return "".join(c if c in "\t\n\r" or (c >= " " and not _surrogate(c)) else "�" for c in text)


def _surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff" or character in "￾￿"
