"""What every test may rely on: one torch thread, a cache of its own, a simulated device."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

from baselines.base import BASELINES, DATASETS
from baselines.data.sources import cache_dir
from baselines.registry import PLUGIN_PREFIX
from bench.device import Device
from bench.scenarios.base import SCENARIOS
from techniques.base import TECHNIQUES

torch.set_num_threads(1)
# How long an example takes is the host's matter, not the property's.
settings.register_profile("leanrec", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("leanrec")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a device or a browser that this machine lacks."""
    missing = {
        "cuda": "" if torch.cuda.is_available() else "no CUDA device",
        "browser": "" if all(map(shutil.which, ("chromium", "chromedriver"))) else "no Chromium",
    }
    for item in items:
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="module")
def _few_objects() -> None:
    """Takes what is loaded by now out of later collections: one precedes every timed block."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_plugins() -> Iterator[None]:
    """A plug-in file that a test loads is forgotten after it, with what it registered."""
    yield from _plugins_forgotten()


@pytest.fixture(autouse=True, scope="module")
def _own_plugins_of_a_module() -> Iterator[None]:
    """The same of what fixtures of a whole file load."""
    yield from _plugins_forgotten()


def _plugins_forgotten() -> Iterator[None]:
    registries = (BASELINES, DATASETS, TECHNIQUES, SCENARIOS)
    modules, known = set(sys.modules), [dict(registry._classes) for registry in registries]
    yield
    for registry, before in zip(registries, known, strict=True):
        for name, plugin in list(registry._classes.items()):
            if name not in before and not plugin.__module__.startswith(f"{registry.package}."):
                del registry._classes[name]
    for module in set(sys.modules) - modules:
        if module.startswith(PLUGIN_PREFIX):
            del sys.modules[module]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for this session that sees the data files of the user's, and leaves it as it was."""
    users, own = cache_dir(), tmp_path_factory.mktemp("cache")
    if users.is_dir():
        for file in users.iterdir():
            if file.is_file() and file.suffix != ".lock":
                (own / file.name).symlink_to(file.resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEANREC_CACHE", str(own))
        yield


class AsyncDevice:
    """A device that works behind the caller's back, in order, as a CUDA stream does.

    `device` is its Device: computing on the CPU, but done only after ``device.synchronize()``,
    which also raises what the work raised.
    """

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._pending: list[Future[object]] = []
        self.device = Device("cpu", torch.device("cpu"), self._synchronize)

    def _synchronize(self) -> None:
        pending, self._pending = self._pending, []
        for work in pending:
            work.result()

    def launch(self, work: Callable[[], object]) -> None:
        """Queue `work` and return at once."""
        self._pending.append(self._worker.submit(work))

    def deferred(self, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`call`, returning at once: zeros, one per row, that are the answer once it is done."""

        def launch(*batch: Tensor) -> Tensor:
            answer = torch.zeros(len(batch[0]))

            @torch.inference_mode()  # a mode that each thread enters for itself
            def work() -> None:
                answer.copy_(call(*batch))

            self.launch(work)
            return answer

        return launch

    def close(self) -> None:
        """Wait for the work and end the thread."""
        self._worker.shutdown()


@pytest.fixture
def async_device() -> Iterator[AsyncDevice]:
    """A simulated asynchronous device, idle."""
    device = AsyncDevice()
    yield device
    device.close()
