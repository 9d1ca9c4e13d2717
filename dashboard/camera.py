"""Takes the README's pictures of the dashboard: ``python -m dashboard.camera RUN FOLDER``.

Needs Chromium and chromedriver, and selenium, which is in the extra ``dev``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from baselines.errors import LeanRecError

WIDTH, TALLEST = 1280, 1400  # pixels
PATIENCE = 120.0  # seconds for the server to start, or a page to be drawn
PICTURES = {
    "overview": ("light", {"view": "Overview"}),
    "quality-speed": ("light", {"view": "Quality against speed"}),
    "effects-dark": ("dark", {"view": "Effects"}),
}
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip
_HEIGHT = """
const main = document.querySelector('[data-testid=stMainBlockContainer]');
return main ? main.scrollHeight : 0;
"""
_BUSY = "[data-testid=stStatusWidget], [data-testid=stSkeleton], [data-stale=true]"


def take(run: Path, folder: Path) -> list[Path]:
    """Write a PNG of each of `PICTURES` of a run's dashboard into `folder`; their paths.

    Raises LeanRecError without Chromium, or where a page is not drawn in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with served(run) as address, browser() as found:
        for name, (theme, query) in PICTURES.items():
            found.set_window_size(WIDTH, 800)
            show(found, f"{address}/?{urlencode(query)}", theme)
            found.set_window_size(WIDTH, min(int(found.execute_script(_HEIGHT)), TALLEST))
            settle(found)
            paths.append(folder / f"{name}.png")
            found.save_screenshot(str(paths[-1]))
    return paths


@contextmanager
def served(*runs: Path) -> Iterator[str]:
    """The address of a dashboard of `runs`, on this machine only."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "import sys; from pathlib import Path; from dashboard.launch import launch; "
    code += "sys.exit(launch([Path(run) for run in sys.argv[2:]], int(sys.argv[1])))"
    server = subprocess.Popen(
        [sys.executable, "-c", code, str(port), *map(str, runs)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _await_health(f"{address}/_stcore/health")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # the launcher and the server that it started
        server.wait(30)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium. Raises LeanRecError where there is none."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        raise LeanRecError(
            "Chromium or chromedriver is not installed.",
            "No page can be drawn.",
            "Install both, for example: apt-get install chromium chromium-driver.",
        )
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*_FLAGS, f"--window-size={WIDTH},1000", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        found = webdriver.Chrome(options=options, service=Service(driver))
        try:
            yield found
        finally:
            found.quit()


def show(found: Any, address: str, theme: str = "light") -> None:
    """Open a page as who prefers a light or a dark theme sees it, and wait until it is drawn."""
    scheme = {"name": "prefers-color-scheme", "value": theme}
    found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    found.get(address)
    settle(found)


def settle(found: Any) -> None:
    """Wait until a page is drawn and at rest. Raises LeanRecError where it is not in time."""
    from selenium.webdriver.common.by import By

    end, quiet = time.monotonic() + PATIENCE, 0
    while quiet < 3:
        drawn = found.find_elements(By.CSS_SELECTOR, "[data-testid=stHeading] h2")
        busy = found.find_elements(By.CSS_SELECTOR, _BUSY)
        quiet = quiet + 1 if drawn and not busy else 0
        if time.monotonic() > end:
            raise LeanRecError(
                f"The page {found.current_url} was not drawn within {PATIENCE:.0f} s.",
                "There is no picture of it.",
                "Try again when the machine has less to do.",
            )
        time.sleep(0.3)


def _await_health(address: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(address, timeout=1) as answer:
            if answer.status == 200:
                return
        time.sleep(0.3)
    raise LeanRecError(
        f"The dashboard did not start within {PATIENCE:.0f} s.",
        "There is no picture of it.",
        "Start it by itself to see why: leanrec dashboard RUN.",
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("Usage: python -m dashboard.camera RUN FOLDER")
    try:
        for picture in take(Path(sys.argv[1]), Path(sys.argv[2])):
            print(f"{picture}: {picture.stat().st_size / 1e3:.0f} kB")
    except LeanRecError as error:
        sys.exit("\n".join(filter(None, (error.cause, error.consequence, error.fix))))
