"""Suite files: a TOML file that names a matrix of cells, its protocol and its gates."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from baselines.errors import LeanRecError
from bench.protocol import Protocol, QualityMargin


class Gates(BaseModel):
    """Limits that a run must keep; one that is broken makes `leanrec run` exit with 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quality: QualityMargin | None = None  # every stack must be non-inferior under this margin


class Suite(BaseModel):
    """The matrix: every baseline × every stack × every scenario.

    Entries are specs, for example ``dcnv2(width=1024)``, or ``name = spec``, which gives the spec
    the name that reports show. A stack joins techniques by ``+``.
    primary: patterns of cell ids (shell wildcards) whose verdicts form the primary family.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    about: str
    baselines: tuple[str, ...] = Field(min_length=1)
    stacks: tuple[str, ...]
    scenarios: tuple[str, ...] = Field(min_length=1)
    primary: tuple[str, ...] = ()
    budget_seconds: float | None = Field(None, gt=0)
    protocol: Protocol = Protocol()
    gates: Gates = Gates()


def shipped_suites() -> dict[str, Path]:
    """Name → file of the suites that come with LeanRec."""
    folder = Path(str(resources.files("bench") / "suites"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_suite(name_or_path: str) -> Suite:
    """The suite of that name, or in that TOML file. Raises LeanRecError for any mistake in it."""
    shipped = shipped_suites()
    path = shipped.get(name_or_path, Path(name_or_path))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        near = difflib.get_close_matches(name_or_path, shipped, n=2)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise LeanRecError(
            f"There is no suite or suite file {name_or_path!r}.",
            "Nothing was run.",
            f"{hint}Shipped: {', '.join(shipped)}; or give the path of a TOML file.",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LeanRecError(
            f"Suite {path} is not readable TOML: {error}.", "Nothing was run.", "Correct the file."
        ) from None
    return _checked({"name": path.stem, **content}, f"Suite {path}")


def narrowed(
    suite: Suite,
    baselines: Iterable[str] = (),
    stacks: Iterable[str] = (),
    scenarios: Iterable[str] = (),
    budget: float | None = None,
) -> Suite:
    """The suite with other entries, where some are given: an option replaces what the suite names.

    A bare name that the suite gives parameters to keeps them; any other spec is taken as it is.
    Raises LeanRecError for a budget that is not positive.
    """
    changes: dict[str, Any] = {}
    for name, given in (("baselines", baselines), ("stacks", stacks), ("scenarios", scenarios)):
        if chosen := tuple(_of_suite(spec, getattr(suite, name)) for spec in given):
            changes[name] = chosen
    if budget is not None:
        changes["budget_seconds"] = budget
    return _checked(suite.model_dump() | changes, "The options")


def _of_suite(spec: str, entries: tuple[str, ...]) -> str:
    """The suite's own entry of that name, of that plug-in with other parameters, or `spec`."""
    for entry in entries:
        name = entry.partition("=")[0]
        if spec == name.strip() or ("+" not in entry and spec == entry.split("(")[0].strip()):
            return entry
    return spec


def _checked(content: dict[str, Any], source: str) -> Suite:
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        known = _nearest(str(first["loc"][-1])) if first["type"] == "extra_forbidden" else ""
        raise LeanRecError(
            f"{source}, {where}: {first['msg']}.", "Nothing was run.", known or "Correct it."
        ) from None


def _nearest(key: str) -> str:
    known = [*Suite.model_fields, *Protocol.model_fields, *Gates.model_fields]
    near = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else ""
