"""A process started beside this one for work that goes on at the same time, and the pipe to it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from torch import multiprocessing

from baselines.errors import LeanRecError

PATIENCE = 10.0  # seconds in which a process must end when its pipe is closed


class Spawned:
    """Runs ``target(connection, *arguments)`` in a fresh interpreter; tensors among the arguments
    move to shared memory. It ends when its end of the pipe finds this one closed: with `close`, and
    with this process however that ends.

    name: what it is, for an error. `send` and `receive` raise LeanRecError where it has ended.
    """

    def __init__(self, name: str, target: Callable[..., None], *arguments: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.name = name
        self.connection, its = spawn.Pipe()
        self.process = spawn.Process(target=_run, args=(its, target, *arguments), daemon=True)
        self.process.start()
        its.close()  # so that its end is seen here

    def send(self, thing: object) -> None:
        """Hand it something; waits while its pipe is full."""
        try:
            self.connection.send(thing)
        except OSError:
            self._mourn()

    def receive(self) -> Any:
        """The next thing that it sends; waits for it."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self._mourn()

    @property
    def has_sent(self) -> bool:
        """Whether `receive` would return, or raise, at once."""
        return self.connection.poll()

    def close(self) -> None:
        """Tell it to end, and kill it if it does not heed."""
        self.connection.close()
        self.process.join(PATIENCE)
        self.process.kill()
        self.process.join()
        self.process.close()

    def _mourn(self) -> NoReturn:
        self.process.join(PATIENCE)
        raise LeanRecError(
            f"{self.name} ended with exit code {self.process.exitcode}.",
            "What it worked for was stopped.",
            "Read what it said before; −9 is what the kernel does when memory runs out.",
        )


def _run(connection: Connection, target: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter's to answer
    try:
        target(connection, *arguments)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody is there any more
