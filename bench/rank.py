"""One rank of a training: a job on stdin as a line of JSON, then orders; its answers on stdout.

Whatever libraries print goes to stderr. Started by `bench.ranks`.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.distributed as dist

from baselines.base import Batch
from baselines.errors import LeanRecError
from baselines.parallel import own_part
from baselines.registry import load_plugin
from baselines.trainer import Epoch, NonFiniteLoss, Trainer
from bench.allocator import keep_freed_memory
from bench.collectives import Traffic, join_group
from bench.device import Device, get_device
from bench.meters.clock import TALLY, time_window
from bench.orphan import die_with_parent
from bench.pipeline import Pipeline
from bench.ranks import Done, EpochOver, Failed, Job, Order, Ready, Started, Window
from bench.records import Row
from bench.store import Store

BATCHES = 64  # distinct ones, at most, that orders choose from


def main() -> None:
    """Do the job that stdin names."""
    die_with_parent()
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(row: Row) -> None:
        lines.write(row.model_dump_json() + "\n")
        lines.flush()

    emit(Started())
    job = Job.model_validate_json(sys.stdin.readline())
    try:
        run(job, emit, map(Order.model_validate_json, sys.stdin))
    except LeanRecError as error:
        emit(Failed(cause=error.cause, consequence=error.consequence, fix=error.fix))
    except NonFiniteLoss as error:
        emit(Failed(cause=str(error), diverged=True))


def run(job: Job, emit: Callable[[Row], None], orders: Iterable[Order]) -> None:
    """Train to the job's folder; without one, carry out orders."""
    for path in job.plugins:
        load_plugin(path)
    torch.set_num_threads(job.threads)
    keep_freed_memory()
    pipeline = Pipeline.from_specs(
        job.baseline, job.stack, _device(job), job.seed, Store(job.store)
    )
    traffic = Traffic()
    if pipeline.recipe.parallel is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = job.interface
        device = pipeline.device.torch_device
        traffic = join_group(device, job.meeting, job.rank, job.ranks, job.link)

    def tell(epoch: Epoch) -> None:
        if job.rank == 0:
            emit(EpochOver(**dataclasses.asdict(epoch)))

    if job.folder is not None:
        pipeline.fit_into(job.folder if job.rank == 0 else None, tell, job.checkpoints)
        emit(Done())
    else:
        rank = _Stepper(pipeline, job, traffic)
        emit(rank.ready)
        for order in orders:
            emit(rank.carry_out(order))
    if dist.is_initialized():
        dist.destroy_process_group()


def _device(job: Job) -> Device:
    """This rank's device. Raises LeanRecError where there are fewer than ranks."""
    if job.device == "cuda":
        there = torch.cuda.device_count()
        if there < job.ranks:
            raise LeanRecError(
                f"{job.ranks} ranks need as many CUDA devices, and there are {there}.",
                "Nothing was trained.",
                "Use fewer ranks, or another device.",
            )
        torch.cuda.set_device(job.rank)
    return get_device(job.device)


class _Stepper:
    """Trains on the batches that orders name."""

    def __init__(self, pipeline: Pipeline, job: Job, traffic: Traffic) -> None:
        self.pipeline, self.job, self.traffic = pipeline, job, traffic
        self.trainer = self._trainer(pipeline)
        drawn = list(itertools.islice(self.trainer.batches(pipeline.data), BATCHES))
        self.batches = [batch for batch in drawn if len(batch[0]) == len(drawn[0][0])]
        self.alone: Trainer | None = None
        self.synchronize = pipeline.device.synchronize

    @staticmethod
    def _trainer(pipeline: Pipeline) -> Trainer:
        return pipeline.trainer(pipeline.fresh_model(pipeline.device.torch_device))

    @property
    def ready(self) -> Ready:
        parallel = self.trainer.recipe.parallel
        return Ready(
            batches=len(self.batches),
            rows=len(self.batches[0][0]),
            steady_after=parallel.warmup_steps if parallel else 0,
            cycle=parallel.cycle if parallel else 1,
        )

    def carry_out(self, order: Order) -> Window:
        """Start together with the other ranks, and time the steps."""
        batches = [self.batches[pick] for pick in order.picks]
        trainer = self.trainer
        if not order.together:
            trainer = self.alone = self.alone or self._trainer(self.pipeline.control())
            batches = [self._share(batch) for batch in batches]
        self._meet()
        self.traffic.take()
        TALLY.take()
        wire = _sent_on_wire(self.job.interface)
        start = time.perf_counter_ns()
        _, _, loss = time_window(lambda *batch: trainer.step(batch), batches, self.synchronize)
        end = time.perf_counter_ns()
        self._meet()
        counted, left = self.traffic.take(), _sent_on_wire(self.job.interface)
        return Window(
            start=start,
            end=end,
            rows=TALLY.take(),
            loss=loss.item(),
            collectives=counted.collectives,
            payload=counted.payload,
            sent=counted.sent,
            on_wire=None if wire is None or left is None else left - wire,
            state_bytes=state_bytes(trainer),
        )

    def _share(self, batch: Batch) -> Batch:
        return self.pipeline.baseline.task.share(batch, self.job.rank, self.job.ranks)[0]

    def _meet(self) -> None:
        if dist.is_initialized():
            dist.barrier()


def state_bytes(trainer: Trainer) -> int:
    """Bytes of the weights, the optimisers' state and what else this rank holds between steps."""
    held: dict[int, torch.Tensor] = {id(t): t for t in trainer.kept()}
    for optimiser in trainer.optimisers:
        inner = getattr(optimiser, "optim", optimiser)  # of a ZeroRedundancyOptimizer: its part
        for group in optimiser.param_groups:
            held |= {id(p): p for p in group["params"]}
        for moments in inner.state.values():
            held |= {id(m): m for m in moments.values() if isinstance(m, torch.Tensor)}
    return sum(own_part(tensor).nbytes for tensor in held.values())


def _sent_on_wire(interface: str) -> int | None:
    """Bytes that have left the interface; None for the loopback, which the whole host shares."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == interface != "lo":
            return int(fields.split()[8])
    return None


if __name__ == "__main__":
    main()
