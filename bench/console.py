"""The terminal: where commands print, and the arguments that several of them take."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

# A file or a pipe has no width of its own; that of a narrow terminal would fold every table.
out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, soft_wrap=True)

Plugins = Annotated[
    list[Path], typer.Option("--plugin", help="A Python file of your own that registers things.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DeviceName = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]


def print_json(value: Any) -> None:
    """Print strict JSON."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=str))


def end_in_order() -> None:
    """From here on, Ctrl-C raises KeyboardInterrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
