"""Named plug-ins with parameters: how baselines, techniques and scenarios are found.

A plug-in is a frozen dataclass registered under a name; its fields are its parameters. A *spec*
names one in text, in TOML, on the command line and in every record: ``int8-linear`` or
``int8-linear(min_width=32)``. Values are TOML literals; nothing is evaluated.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.metadata
import importlib.util
import json
import pkgutil
import re
import signal
import sys
import threading
import tomllib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from baselines.errors import LeanRecError

T = TypeVar("T")
PLUGIN_PREFIX = "leanrec_plugin_"  # of the module that a plug-in file becomes
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_PIECE = re.compile(r""" "(?:[^"\\]|\\.)*" | '[^']*' | . """, re.DOTALL | re.VERBOSE)
_SPEC = re.compile(r"\s*(?P<name>[^\s()+]+)\s*(?:\((?P<args>.*)\))?\s*", re.DOTALL)


class Registry(Generic[T]):
    """The plug-ins of one kind, found by folder, by entry point and by ``--plugin`` file."""

    def __init__(self, kind: str, package: str, group: str) -> None:
        self.kind, self.package, self.group = kind, package, group
        self._classes: dict[str, type[T]] = {}
        self._found = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: make the class known as `name` (lower case, digits, hyphens).

        Raises LeanRecError for a malformed name or one that another class holds already.
        """
        if not _NAME.fullmatch(name):
            raise LeanRecError(
                f"{self.kind} name {name!r} is not lower case words joined by hyphens.",
                "It could not be written in a suite or a test id.",
                "Rename it, for example 'my-technique'.",
            )

        def add(cls: type[T]) -> type[T]:
            held = self._classes.get(name)
            if held is not None and _origin(held) != _origin(cls):
                both = " and ".join(f"{c.__module__}.{c.__qualname__}" for c in (held, cls))
                raise LeanRecError(
                    f"{self.kind} {name!r} is registered twice: {both}.",
                    "A record could not say which was measured.",
                    "Rename one of them.",
                )
            cls.name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return add

    def _find(self) -> None:
        if self._found:
            return
        with _interrupt_kept():
            package = importlib.import_module(self.package)
            within = pkgutil.walk_packages(package.__path__, f"{self.package}.")
            for module in sorted(found.name for found in within):
                importlib.import_module(module)
            for entry in importlib.metadata.entry_points(group=self.group):
                _guard_import(f"entry point {entry.name!r} of {self.group}", entry.load)
        self._found = True

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._find()
        return sorted(self._classes)

    def get(self, name: str) -> type[T]:
        """The class registered as `name`; LeanRecError with the nearest names otherwise.

        One that is not a dataclass is an error too: its fields are its parameters.
        """
        self._find()
        if name not in self._classes:
            begun = [known for known in sorted(self._classes) if name and known.startswith(name)]
            near = begun[:5] or difflib.get_close_matches(name, self._classes, n=3, cutoff=0.4)
            hint = f"Did you mean {' or '.join(near)}?" if near else ""
            raise LeanRecError(
                f"Unknown {self.kind} {name!r}.",
                "Nothing was run.",
                f"{hint} Known: {', '.join(sorted(self._classes))}.".strip(),
            )
        cls = self._classes[name]
        if not dataclasses.is_dataclass(cls):
            raise LeanRecError(
                f"{self.kind} {name!r} is not a dataclass.",
                "Nothing was run.",
                f"Write @dataclass(frozen=True) above class {cls.__name__}.",
            )
        return cls

    def make(self, spec: str) -> T:
        """The plug-in that `spec` names, with its parameters checked against the fields' types."""
        name, params = parse_spec(spec)
        cls = self.get(name)
        known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for key in params:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                raise LeanRecError(
                    f"{self.kind} {name!r} has no parameter {key!r}.",
                    "Nothing was run.",
                    (f"Did you mean {near[0]!r}? " if near else "")
                    + f"Known: {', '.join(sorted(known)) or 'none'}.",
                )
        try:
            return TypeAdapter(cls).validate_python(params)
        except ValidationError as error:
            first = error.errors()[0]
            raise LeanRecError(
                f"{self.kind} {name!r}: parameter {'.'.join(map(str, first['loc']))!r}: "
                f"{first['msg']} (got {first.get('input')!r}).",
                "Nothing was run.",
                "Correct the value.",
            ) from None
        except TypeError as error:  # a class that lacks a method of the contract
            raise LeanRecError(
                f"{self.kind} {name!r} cannot be made: {error}.",
                "Nothing was run.",
                "Complete the class.",
            ) from error


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Split ``name(key=value, …)`` into the name and its parameters.

    Raises LeanRecError where the text is not of that form or a value is not a TOML literal.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise _malformed(spec)
    args = (match["args"] or "").strip()
    if not args:
        return match["name"], {}
    try:
        table = tomllib.loads(f"v = {{ {args} }}")
    except tomllib.TOMLDecodeError:
        raise _malformed(spec) from None
    if set(table) != {"v"}:  # the braces were closed from within
        raise _malformed(spec)
    return match["name"], table["v"]


def split_specs(text: str) -> list[str]:
    """Specs joined by plus signs; those in brackets or quotes join nothing."""
    parts, depth = [""], 0
    for piece in _PIECE.findall(text):
        depth += (piece == "(") - (piece == ")")
        if piece == "+" and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def format_spec(plugin: Any) -> str:
    """The canonical spec of a plug-in: its name, and its parameters that are not the defaults."""
    changed = [
        f"{field.name}={_literal(getattr(plugin, field.name))}"
        for field in dataclasses.fields(plugin)
        if getattr(plugin, field.name) != field.default
    ]
    return plugin.name + (f"({', '.join(changed)})" if changed else "")


def load_plugin(path: Path) -> None:
    """Import a user's own file, whose decorators register what it defines.

    Raises LeanRecError naming the file and line when it is missing or fails to import.
    """
    path = path.resolve()
    name = f"{PLUGIN_PREFIX}{path.stem}_{abs(hash(str(path))):x}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise LeanRecError(
            f"Plug-in file {path} does not exist or is not a Python file.",
            "Nothing was run.",
            "Give the path of a .py file.",
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        load = spec.loader.exec_module
        with _interrupt_kept():
            _guard_import(f"plug-in {path}", lambda: load(module), str(path))
    except LeanRecError:
        del sys.modules[name]
        raise


def loaded_plugins() -> tuple[Path, ...]:
    """The files that `load_plugin` has imported, in order."""
    found = (m.__file__ for name, m in sys.modules.items() if name.startswith(PLUGIN_PREFIX))
    return tuple(Path(file) for file in found if file)


@contextmanager
def _interrupt_kept() -> Iterator[None]:
    """Leave what Ctrl-C does as it was. Polars takes the signal for itself on import: it is lost
    then where it would end the process, and waits for locks and processes no longer hear it."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _guard_import(what: str, load: Callable[[], Any], file: str | None = None) -> None:
    """Import by `load`; what goes wrong is said with the last line of `file` (or any) that ran."""
    try:
        load()
    except LeanRecError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if file in (None, frame.filename)]
        if isinstance(error, SyntaxError):
            lines.append(error.lineno)
        line = f", line {lines[-1]}" if lines else ""
        raise LeanRecError(
            f"The {what} failed to import{line}: {type(error).__name__}: {error}.",
            "Nothing was run.",
            "Mend it, or leave it out.",
        ) from error


def _origin(cls: type) -> tuple[str | None, str]:
    """The file and name of a class, which stay the same when the file is imported again."""
    return getattr(sys.modules.get(cls.__module__), "__file__", None), cls.__qualname__


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, Path)):
        # JSON's escapes are TOML's, except that TOML also escapes the delete character.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)


def _malformed(spec: str) -> LeanRecError:
    return LeanRecError(
        f"{spec!r} is not of the form name or name(key=value, …).",
        "Nothing was run.",
        "Values are numbers, true/false, quoted text or [lists].",
    )
