"""The dashboard in a real browser: every page opens, and the console stays quiet."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from matplotlib.image import imread
from synthetic_run import Truth, write_run

from bench.run import Underway, write_json
from dashboard import camera
from dashboard.app import VIEWS

pytestmark = [pytest.mark.browser, pytest.mark.slow]
selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with camera.browser() as found:
        yield found


@pytest.fixture(scope="module")
def address(run_folder: Path, served_folder: Path) -> Iterator[str]:
    with camera.served(run_folder, served_folder) as found:
        yield found


@pytest.mark.parametrize("view", VIEWS)
def test_every_page_opens_in_a_browser(
    browser: Any, address: str, served_folder: Path, view: str
) -> None:
    of = f"&run={quote(str(served_folder))}" if view == "Serving" else ""
    camera.show(browser, f"{address}/?view={quote(view)}{of}")
    wait = WebDriverWait(browser, 60)
    assert not browser.find_elements(By.CSS_SELECTOR, "[data-testid=stException]")
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe
    for image in browser.find_elements(By.CSS_SELECTOR, "img.figure"):
        wait.until(lambda _, image=image: int(image.get_property("naturalWidth")) > 0)
    wide = browser.execute_script("return document.documentElement.scrollWidth > innerWidth")
    assert not wide


@pytest.mark.parametrize(("theme", "dark"), [("light", False), ("dark", True)])
def test_a_figure_is_as_dark_as_the_page(
    browser: Any, address: str, theme: str, dark: bool
) -> None:
    camera.show(browser, f"{address}/?view=Effects", theme)
    figure = browser.find_element(By.CSS_SELECTOR, "img.figure")
    pixels = imread(BytesIO(figure.screenshot_as_png))
    assert (np.median(pixels[..., :3]) < 0.2) == dark


def test_a_page_follows_a_run_until_it_is_finished_and_keeps_its_filters(
    browser: Any, tmp_path: Path
) -> None:
    truths = {"bf16": Truth({4096: 3.0}), "compile": Truth({4096: 2.0})}
    write_run(tmp_path, truths, ["dcnv2"], processes=0, finished=False)
    now = Underway(done=0, expected=10, seconds_left=90.0, doing="measure dcnv2 × bf16 #0")
    write_json(tmp_path / "progress.json", now)
    wait = WebDriverWait(browser, 60)

    def shown(text: str) -> None:
        wait.until(lambda b: text in b.find_element(By.TAG_NAME, "body").text)

    with camera.served(tmp_path) as address:
        camera.show(browser, f"{address}/?view=Verdicts&technique=bf16")
        shown("Being measured: measure dcnv2 × bf16 #0. 0 of 10 processes are done")
        shown("in progress")
        write_run(tmp_path, truths, ["dcnv2"], processes=2, finished=False)
        shown("3.00× faster")
        write_run(tmp_path, truths, ["dcnv2"])
        wait.until(lambda b: "Being measured" not in b.find_element(By.TAG_NAME, "body").text)
        assert "technique=bf16" in browser.current_url
        assert "compile" not in browser.find_element(By.CSS_SELECTOR, ".leanrec table").text


def test_pictures_are_taken_of_the_pages_that_are_named(run_folder: Path, tmp_path: Path) -> None:
    paths = camera.take(run_folder, tmp_path)
    assert [path.stem for path in paths] == list(camera.PICTURES)
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert int.from_bytes(content[16:20], "big") == camera.WIDTH
