"""Look at a sweep in MLflow's pages with a real browser: ``python browser.py http://127.0.0.1:5000 <folder>``.

Needs Selenium (the extra ``slow``) and Chromium with its driver. The pages are those of MLflow 3.17.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from mlflow import MlflowClient
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60  # to wait for anything to appear

_CARD = '[data-testid="experiment-view-compare-runs-card"]'
_SEARCH = 'input[placeholder="Search metric charts"]'


def installed() -> str | None:
    """Where Chromium is, if its driver is there too."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    return found if shutil.which("chromedriver") else None


class Pages:
    """MLflow's pages in a browser of their own; closed at the end of the ``with``."""

    def __init__(self, url: str, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = installed()
        for flag in (
            *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1400,900"),
            *("disable-quic", "no-first-run", "disable-background-networking", "disable-component-update"),
            *("disable-sync", "hide-scrollbars", f"user-data-dir={profile}"),
        ):
            options.add_argument(f"--{flag}")
        self.url = url
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, *error: object) -> None:
        self.driver.quit()

    def runs(self, experiment: str, names: Iterable[str]) -> str:
        """The text of the page that lists an experiment's runs, once all of these are there."""
        self._open(f"experiments/{experiment}/runs?startTime=ALL")
        self._wait(lambda: all(name in self.text for name in names))
        self._close_assistant()
        return self.text

    def compared(self, experiment: str, runs: list[str], metric: str) -> int:
        """The page that compares runs by one metric; the number of lines that are drawn."""
        names = [f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in self._metric_page(runs, metric)]
        self._open(f"metric?{'&'.join(names)}&experiments=[%22{experiment}%22]&x_axis=step&y_axis_scale=linear")
        lines = self._wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, ".scatterlayer .trace .js-line"))
        return len({line.value_of_css_property("stroke") for line in lines})  # a run's smoothed line has its colour

    def overlay(self, experiment: str, run: str) -> tuple[int, int]:
        """The last overlay on a run's page, enlarged; the width and height of its file, in pixels."""
        self._open(f"experiments/{experiment}/runs/{run}/model-metrics")
        self._search("overlay")
        card = self._cards()[0]
        slider = card.find_element(By.CSS_SELECTOR, "[role=slider]")
        slider.click()
        self._wait(lambda: self._is_last(slider))
        card.find_elements(By.TAG_NAME, "button")[0].click()
        image = self._wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, "[role=dialog] .rc-image img"))[0]
        # MLflow lists every parameter above it.
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
        size = "return [arguments[0].naturalWidth, arguments[0].naturalHeight]"
        return self._wait(lambda: min(self.driver.execute_script(size, image)) and image.is_displayed()) and tuple(
            self.driver.execute_script(size, image)
        )

    def _is_last(self, slider: WebElement) -> bool:
        slider.send_keys(Keys.ARROW_RIGHT)
        return slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")

    def description(self, experiment: str, run: str) -> str:
        """The text of a run's own page, whose description is a run's note."""
        self._open(f"experiments/{experiment}/runs/{run}")
        self._wait(lambda: "Description" in self.text)
        return self.text

    def save(self, path: Path) -> None:
        """Write what is seen now as a PNG."""
        self.driver.save_screenshot(str(path))

    @property
    def text(self) -> str:
        """All text of the page."""
        return self.driver.execute_script("return document.body.innerText")

    def _metric_page(self, runs: list[str], metric: str) -> list[tuple[str, object]]:
        return [("runs", runs), ("metric", metric), ("plot_metric_keys", [metric]), ("plot_layout", {"autosize": True})]

    def _open(self, page: str) -> None:
        self.driver.get(f"{self.url}/#/{page}")
        self.driver.refresh()  # another fragment alone does not load a page anew
        self._close_assistant()

    def _close_assistant(self) -> None:
        self.driver.execute_script(
            "document.querySelectorAll('button').forEach(b => /close/i.test(b.ariaLabel || '') && b.click())"
        )

    def _cards(self) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, _CARD)

    def _search(self, words: str) -> None:
        fields = self._wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, _SEARCH))
        self._close_assistant()
        fields[0].send_keys(words)
        self._wait(lambda: self._cards() and all(words in card.text for card in self._cards()))

    def _wait(self, condition: Callable[[], object]) -> object:
        return WebDriverWait(self.driver, SECONDS, ignored_exceptions=[Exception]).until(lambda _: condition())


def main(url: str, folder: str) -> None:
    """Write the pictures of the README, of the last three runs of the first experiment that has any."""
    client = MlflowClient(url)
    runs = client.search_runs([item.experiment_id for item in client.search_experiments()], max_results=3)
    experiment, out = runs[0].info.experiment_id, Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    with Pages(url, out / ".profile") as pages:
        pages.runs(experiment, [run.info.run_name for run in runs])
        pages.save(out / "runs.png")
        pages.compared(experiment, [run.info.run_id for run in runs], "val/mean_iou")
        pages.save(out / "compare.png")
        pages.overlay(experiment, runs[0].info.run_id)
        pages.save(out / "overlay.png")
    shutil.rmtree(out / ".profile", ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
