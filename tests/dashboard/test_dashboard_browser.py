"""The dashboard in a real browser: every page opens, and the console stays quiet."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from hostile_run import write_hostile_run
from large_run import write_large_run
from matplotlib.image import imread
from synthetic_run import Truth, write_run

from bench.run import Underway, write_json
from dashboard import camera
from dashboard.app import TRADE_OFF, VIEWS

pytestmark = [pytest.mark.browser, pytest.mark.slow]
selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with camera.browser() as found:
        yield found


@pytest.fixture(scope="module")
def runs(
    run_folder: Path,
    served_folder: Path,
    empty_folder: Path,
    crashed_folder: Path,
    hostile_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    return {
        "finished": run_folder,
        "served": served_folder,
        "empty": empty_folder,
        "crashed": crashed_folder,
        "hostile": hostile_folder,
        "hostile too": write_hostile_run(tmp_path_factory.mktemp("too"), "another host"),
        "large": write_large_run(tmp_path_factory.mktemp("large")),
    }


@pytest.fixture(scope="module")
def address(runs: dict[str, Path]) -> Iterator[str]:
    with camera.served(*runs.values()) as found:
        yield found


KINDS = ("finished", "empty", "crashed", "hostile", "large")
PAGES = [(kind, view) for kind in KINDS for view in VIEWS]


@pytest.mark.parametrize(("kind", "view"), [*PAGES, ("served", "Serving")])
def test_every_page_of_every_run_opens_in_a_browser(
    browser: Any, address: str, runs: dict[str, Path], kind: str, view: str
) -> None:
    query = {"view": view, "run": str(runs[kind]), "with": str(runs["hostile too"])}
    camera.show(browser, f"{address}/?{urlencode(query)}")
    wait = WebDriverWait(browser, 60)
    assert not browser.find_elements(By.CSS_SELECTOR, "[data-testid=stException]")
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe
    assert not browser.find_elements(By.CSS_SELECTOR, ".leanrec script, .leanrec [onerror]")
    for image in browser.find_elements(By.CSS_SELECTOR, "img.figure"):
        wait.until(lambda _, image=image: int(image.get_property("naturalWidth")) > 0)


@pytest.mark.parametrize(
    ("kind", "view"),
    [*(("finished", view) for view in VIEWS), ("served", "Serving"), ("crashed", "Verdicts")],
)
def test_every_page_fits_into_windows_of_two_widths(
    browser: Any, address: str, runs: dict[str, Path], kind: str, view: str
) -> None:
    query = {"view": view, "run": str(runs[kind]), "with": str(runs["served"])}
    camera.show(browser, f"{address}/?{urlencode(query)}")
    for width in (1920, 1280):
        browser.set_window_size(width, 1000)
        camera.settle(browser)
        assert not browser.execute_script(
            "const wide = e => e.scrollWidth > e.clientWidth + 1;"
            "return [document.documentElement, ...document.querySelectorAll('.leanrec .scroll')]"
            ".filter(wide).map(e => e.textContent.slice(0, 200))"
        )


def test_a_filter_that_is_clicked_is_followed_and_can_be_sent(
    browser: Any, address: str, runs: dict[str, Path]
) -> None:
    wait = WebDriverWait(browser, 60)
    query = urlencode({"view": "Verdicts", "run": str(runs["finished"])})
    camera.show(browser, f"{address}/?{query}")
    field = browser.find_element(By.CSS_SELECTOR, "input[aria-label*=Technique]")
    field.send_keys("bf16", Keys.ENTER)
    wait.until(lambda b: "technique=bf16" in b.current_url)
    camera.settle(browser)
    table = browser.find_element(By.CSS_SELECTOR, ".leanrec table").text
    camera.show(browser, browser.current_url)
    assert "bf16" in table
    assert "int8-linear" not in table
    assert browser.find_element(By.CSS_SELECTOR, ".leanrec table").text == table


def test_a_limit_that_is_moved_is_followed(
    browser: Any, address: str, runs: dict[str, Path]
) -> None:
    query = urlencode({"view": TRADE_OFF, "run": str(runs["finished"]), "speedup": "1.2"})
    camera.show(browser, f"{address}/?{query}")
    thumb = browser.find_element(By.CSS_SELECTOR, "input[type=range][aria-label^=Speed-up]")
    thumb.send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(browser, 60).until(lambda b: "speedup=1.3" in b.current_url)
    camera.settle(browser)
    assert "break a limit" in browser.find_element(By.TAG_NAME, "body").text


def test_the_exact_numbers_are_told_when_a_cell_is_pointed_at(
    browser: Any, address: str, runs: dict[str, Path]
) -> None:
    camera.show(browser, f"{address}/?{urlencode({'run': str(runs['finished'])})}")
    cells = browser.find_elements(By.CSS_SELECTOR, ".leanrec td[title]")
    assert any("Throughput (batch=4096): faster, 3.3" in c.get_attribute("title") for c in cells)


def test_pictures_and_tables_are_downloaded(
    browser: Any, address: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    query = {"view": "Effects", "run": str(runs["finished"]), "scenario": "offline"}
    camera.show(browser, f"{address}/?{urlencode(query)}")
    begins = {"PNG": b"\x89PNG", "SVG": b"<?xml", "CSV": b"Stack,Metric,Point,Control"}
    for kind, begin in begins.items():
        pattern = f"*.{kind.lower()}"
        button = f"//*[@data-testid='stDownloadButton']//button[contains(., '{kind}')]"
        browser.find_element(By.XPATH, button).click()
        WebDriverWait(browser, 60).until(lambda _, pattern=pattern: list(tmp_path.glob(pattern)))
        (path,) = tmp_path.glob(pattern)
        assert path.read_bytes().startswith(begin)


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
