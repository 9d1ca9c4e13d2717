"""What there is to choose from: what `leanrec list` prints."""

from __future__ import annotations

import dataclasses
import inspect
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from baselines.base import BASELINES, DATASETS
from baselines.errors import LeanRecError
from baselines.registry import Registry, load_plugin
from bench.scenarios.base import SCENARIOS
from bench.suite import shipped_suites
from techniques.base import TECHNIQUES


def catalogue(kind: str, plugins: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """Name, one line about it and its parameters, for everything of that kind.

    Raises LeanRecError for a kind that is none of baselines, datasets, techniques, scenarios,
    suites.
    """
    for path in plugins:
        load_plugin(path)
    kinds: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "baselines": lambda: _registered(BASELINES),
        "datasets": lambda: _registered(DATASETS),
        "techniques": lambda: _registered(TECHNIQUES),
        "scenarios": lambda: _registered(SCENARIOS),
        "suites": _suites,
    }
    if kind not in kinds:
        raise LeanRecError(
            f"There is nothing of the kind {kind!r} to list.", "", f"Known: {', '.join(kinds)}."
        )
    return kinds[kind]()


def _registered(registry: Registry[Any]) -> list[dict[str, Any]]:
    rows = []
    for name in registry.names():
        cls = registry.get(name)
        rows.append(
            {
                "name": name,
                "about": (inspect.getdoc(cls) or "").split("\n", maxsplit=1)[0],
                "parameters": {f.name: _default(f) for f in dataclasses.fields(cls)},
            }
        )
    return rows


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default, None where there is none."""
    return None if field.default is dataclasses.MISSING else field.default


def _suites() -> list[dict[str, Any]]:
    return [
        {"name": name, "about": tomllib.loads(path.read_text(encoding="utf-8"))["about"]}
        for name, path in shipped_suites().items()
    ]
