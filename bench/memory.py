"""The memory pass: one arm alone in its own process, so that peaks are its own."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from baselines.base import Batch
from bench.device import Device
from bench.meters.children import Children
from bench.meters.memory import (
    DeviceMemory,
    grows,
    live_tensor_bytes,
    peak_rss_bytes,
    reset_peak_rss,
    rss_bytes,
)
from bench.pipeline import Pipeline
from bench.records import Arm, EventRow, Metric, ValueRow
from techniques.sizes import deployed_bytes

INFERENCE_CALLS = 8
TRAINING_STEPS = 8
WINDOWS = 6


def _metric(name: str, estimator: str) -> Metric:
    return Metric(
        name=name, unit="B", direction="lower", scale="ratio", estimator=estimator, over_ranks="sum"
    )


MODEL_BYTES = _metric("model_bytes", "weights, buffers and packed state of what is served")
PEAK_MEMORY = _metric("peak_memory", "peak of the allocator; on a CPU, of resident bytes")
STEADY_MEMORY = _metric("steady_memory", "held after warm-up, counted as the peak is")
PEAK_RESERVED = _metric("peak_reserved", "peak of the allocator's reservation")
DEVICE_MEMORY = _metric("device_memory", "in use on the device beyond its context")


def inference_memory(
    pipeline: Pipeline, arm: Arm, scenario: str, batch_size: int, rng: np.random.Generator
) -> Iterator[ValueRow | EventRow]:
    """Memory of serving one arm, by requests of `batch_size` rows; a failure where it leaks."""
    task, data = pipeline.baseline.task, pipeline.data
    drawn = task.requests(data, batch_size, INFERENCE_CALLS, int(rng.integers(2**31)))
    batches = [pipeline.device.move(batch) for batch in drawn]
    pipeline.train()
    meter = _Meter(pipeline.device)
    served = pipeline.predictor(pipeline.trained_model())
    with torch.inference_mode():
        yield from meter.rows(arm, scenario, served, batches)
    yield ValueRow(
        scenario=scenario, metric=MODEL_BYTES, arm=arm, value=float(deployed_bytes(served))
    )


def training_memory(pipeline: Pipeline, arm: Arm, scenario: str) -> Iterator[ValueRow | EventRow]:
    """Memory of training one arm for a few steps, model, gradients and optimiser included."""
    meter = _Meter(pipeline.device)
    trainer = pipeline.trainer(pipeline.fresh_model(pipeline.device.torch_device))
    batches = list(islice(trainer.batches(pipeline.data), TRAINING_STEPS))
    try:
        yield from meter.rows(arm, scenario, lambda *batch: trainer.step(batch), batches)
    finally:
        trainer.close()


class _Meter:
    """Peaks since the meter was made, which is before the model is loaded."""

    def __init__(self, device: Device) -> None:
        gc.collect()
        self.device = device
        self.on_device = DeviceMemory(device)
        device.reset_peaks()
        reset_peak_rss()

    def rows(
        self, arm: Arm, scenario: str, call: Callable[..., Any], batches: list[Batch]
    ) -> Iterator[ValueRow | EventRow]:
        """Call every batch in several windows; yield what was held and any steady growth."""
        held = []
        for _ in range(WINDOWS):
            for batch in batches:
                call(*batch)
            if self.device.synchronize is not None:
                self.device.synchronize()
            held.append(live_tensor_bytes())
        if grows(held):
            yield EventRow(
                scenario=scenario,
                name="memory_leak",
                severity="failure",
                detail=f"{arm} holds {held[-1] - held[-2]} more bytes of tensors after every "
                f"{len(batches)} calls",
            )
        stats = self.device.memory_stats()
        if stats is None:
            peaks, now = Children().resident_bytes()
            own = peak_rss_bytes()
            peak, steady = None if own is None else own + peaks, rss_bytes() + now
        else:
            peak, steady = stats["peak_allocated"], stats["allocated"]
        values = {
            PEAK_MEMORY: peak,
            STEADY_MEMORY: steady,
            PEAK_RESERVED: stats["peak_reserved"] if stats else None,
            DEVICE_MEMORY: self.on_device.added_bytes(),
        }
        for metric, value in values.items():
            if value is not None:
                point = {"batch": len(batches[0][0])}
                yield ValueRow(
                    scenario=scenario, metric=metric, point=point, arm=arm, value=float(value)
                )
        if stats and stats["alloc_retries"]:
            yield EventRow(
                scenario=scenario,
                name="allocation_retries",
                severity="warning",
                detail=f"{arm}: the allocator had to free its cache {stats['alloc_retries']} times",
            )
