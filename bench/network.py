"""A network of one's own for every rank, as slow as asked for; gone with the ranks.

Each rank starts in a network namespace, with an interface whose token bucket lets so much through;
a bridge in one more namespace joins them. None of it has a name outside the processes that live in
it, so the kernel removes it with them, however they end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from bench.ranks import Ranks

INTERFACE = "eth0"
TOOLS = ("unshare", "nsenter", "ip", "tc")
BURST = "128kb"  # at least one packet as large as the kernel hands over
QUEUE = "100ms"  # of packets; those beyond are lost, and sent again


def reason_against() -> str:
    """Why this host cannot give ranks networks of their own; "" where it can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not found"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    with _hub() as hub:
        if hub is None:
            return "the kernel refuses network namespaces"
        made = _run(hub, "ip", "link", "add", "bridge", "type", "bridge")
        return made or _run(hub, "tc", "qdisc", "add", "dev", "bridge", "root", *_bucket(1000))


def isolated(count: int) -> list[list[str]]:
    """What the command of each of `count` ranks starts with to have a network of its own."""
    return [["unshare", "--net", "--"]] * count


@contextmanager
def joined(ranks: Ranks, mbit: int) -> Iterator[None]:
    """Join the networks of ranks that were started isolated; each sends at most `mbit` Mbit/s.

    Raises OSError where the kernel refuses.
    """
    with _hub() as hub:
        if hub is None:
            raise OSError("the kernel refuses network namespaces")
        _must(hub, "ip", "link", "add", "bridge", "type", "bridge")
        _must(hub, "ip", "link", "set", "bridge", "up")
        for rank, process in enumerate(ranks.processes):
            port, pid = f"port{rank}", process.pid
            far = ("type", "veth", "peer", "name", INTERFACE, "netns", str(pid))
            _must(hub, "ip", "link", "add", port, *far)
            _must(hub, "ip", "link", "set", port, "master", "bridge", "up")
            _must(pid, "ip", "address", "add", f"10.0.0.{rank + 1}/24", "dev", INTERFACE)
            _must(pid, "tc", "qdisc", "add", "dev", INTERFACE, "root", *_bucket(mbit))
            _must(pid, "ip", "link", "set", INTERFACE, "up")
        yield


def _bucket(mbit: int) -> tuple[str, ...]:
    return "tbf", "rate", f"{mbit}mbit", "burst", BURST, "latency", QUEUE


@contextmanager
def _hub() -> Iterator[int | None]:
    """A process in a network namespace of its own, by its id; it ends with this one, whose pipe
    it reads. None where there can be none."""
    command = ["unshare", "--net", "--", "sh", "-c", "echo up; exec cat"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as hub:
        assert hub.stdin is not None
        assert hub.stdout is not None
        try:
            yield hub.pid if hub.stdout.readline() else None
        finally:
            hub.stdin.close()


def _run(inside: int, *command: str) -> str:
    """Run a command in the network of a process; what it complained of, "" where it did not."""
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{inside}/ns/net", "--", *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stderr.strip() or f"exited with {done.returncode}"
    return f"{command[0]}: {said}" if done.returncode else ""


def _must(inside: int, *command: str) -> None:
    if complaint := _run(inside, *command):
        raise OSError(complaint)
