"""The dashboard in a real browser: every page opens, and the console stays quiet."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from dashboard.app import VIEWS

pytestmark = [pytest.mark.browser, pytest.mark.slow]
selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1280,1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def address(run_folder: Path, served_folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "import sys; from pathlib import Path; from dashboard.launch import launch; "
    code += "sys.exit(launch([Path(a) for a in sys.argv[2:]], int(sys.argv[1])))"
    server = subprocess.Popen(
        [sys.executable, "-c", code, str(port), str(run_folder), str(served_folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(f"{url}/_stcore/health")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # the launcher and the server that it started
        server.wait(30)


def wait_until_healthy(url: str) -> None:
    for _ in range(120):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
            if answer.status == 200:
                return
        time.sleep(0.5)
    pytest.fail("The dashboard did not start within a minute")


@pytest.mark.parametrize("view", VIEWS)
def test_every_page_opens_in_a_browser(
    browser: webdriver.Chrome, address: str, served_folder: Path, view: str
) -> None:
    of = f"&run={quote(str(served_folder))}" if view == "Serving" else ""
    browser.get(f"{address}/?view={quote(view)}{of}")
    wait = WebDriverWait(browser, 60)
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "[data-testid=stHeading] h2"))
    wait.until(lambda b: not b.find_elements(By.CSS_SELECTOR, "[data-testid=stStatusWidget]"))
    assert not browser.find_elements(By.CSS_SELECTOR, "[data-testid=stException]")
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe
    for image in browser.find_elements(By.CSS_SELECTOR, "img.figure"):
        wait.until(lambda _, image=image: int(image.get_property("naturalWidth")) > 0)
    wide = browser.execute_script("return document.documentElement.scrollWidth > innerWidth")
    assert not wide
