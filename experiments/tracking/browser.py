"""Look at a sweep in MLflow's pages with a real browser: ``python browser.py http://127.0.0.1:5000 <folder>``.

Needs Selenium (the extra ``slow``) and Chromium with its driver. The pages are those of MLflow 3.17.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode

from mlflow import MlflowClient
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60  # to wait for anything to appear
METRIC = "val/mean_iou"

_FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-quic", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync", "hide-scrollbars"),
)
_NOT_YET = (
    *(NoSuchElementException, StaleElementReferenceException),
    *(ElementNotInteractableException, ElementClickInterceptedException),
)
_SCREEN = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}

_CARD = "experiment-view-compare-runs-card"
_COLUMNS = "//*[@data-testid='column-selector-tree']"
_FOLDED = "//*[contains(@class, 'tree-switcher_close')]"
_CLOSE_ASSISTANT = '[data-component-id="mlflow.assistant.chat_panel.close"]'

# The grid splits a row into one element for its pinned and one for its other columns.
_ROWS = """
const rows = {};
for (const row of document.querySelectorAll('.ag-row')) {
    const cell = name => row.querySelector(`[col-id="${name}"]`);
    const [name, value] = [cell('attributes.`Run Name`'), cell('metrics.`' + arguments[0] + '`')];
    const known = rows[row.getAttribute('row-id')] ??= ['', ''];
    if (name) known[0] = name.querySelector('a').innerText;
    if (value) known[1] = value.innerText;
}
return Object.fromEntries(Object.values(rows).filter(([name, value]) => name && value));
"""

# What is drawn, not what was to be: the corners of each path, fewer than it has points where it is straight. By name,
# for MLflow has so few colours that two runs often share one.
_LINES = """
const lines = {};
for (const trace of arguments[0].querySelectorAll('.scatterlayer .trace'))
    for (const path of trace.querySelectorAll('.js-line'))
        lines[trace.__data__[0].trace.name] = path.getAttribute('d').match(/[ML]/g).length;
return lines;
"""

Seen = TypeVar("Seen")


def installed() -> str | None:
    """Where Chromium is, if its driver is there too."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    return found if shutil.which("chromedriver") else None


class Pages:
    """MLflow's pages in a browser of their own, 1400 x 900 pixels; closed at the end of the ``with``.

    Every method opens a page and waits for what it returns.

    Args:
        url: Where MLflow listens.
        folder: For a picture of the page on which something did not appear.

    Raises:
        TimeoutException: By every method, if what it waits for does not appear.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        options = webdriver.ChromeOptions()
        options.binary_location = installed()
        for flag in (*_FLAGS, f"user-data-dir={self._profile.name}"):
            options.add_argument(f"--{flag}")
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))

    def __enter__(self) -> Pages:
        try:
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", _SCREEN)
            self._open("")
            self._click(By.CSS_SELECTOR, _CLOSE_ASSISTANT)  # it opens by itself once, over a quarter of the page
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.driver.quit()
        self._profile.cleanup()

    def runs(self, experiment: str, metric: str) -> dict[str, str]:
        """The table of an experiment's runs: their names, each with the metric as it is shown.

        To be called once: the column that is added for the metric stays.
        """
        order = {"startTime": "ALL", "orderByKey": f"metrics.`{metric}`", "orderByAsc": "false"}
        self._open(f"experiments/{experiment}/runs", **order)
        self._toggle_column(metric)
        self._toggle_column("Dataset")  # there is no room for both
        return self._wait("runs", lambda: self.driver.execute_script(_ROWS, metric))

    def compared(self, experiment: str, runs: Sequence[str], metric: str) -> dict[str, int]:
        """The page that compares runs by a metric: the names of the runs, each with the corners of its line.

        Args:
            experiment: Its id.
            runs: Ids of them.
            metric: Its name.
        """
        query = {"runs": runs, "experiments": [experiment], "metric": metric, "plot_metric_keys": [metric]}
        query["plot_layout"] = {"autosize": True}
        query = {key: json.dumps(value, separators=(",", ":")) for key, value in query.items()}
        self._open("metric", **query, x_axis="step", y_axis_scale="linear")
        return self._lines(self._find(By.TAG_NAME, "body"), len(runs))

    def curve(self, experiment: str, run: str, chart: str) -> int:
        """The corners of the line that is drawn in a chart on a run's page."""
        (corners,) = self._lines(self._open_chart(experiment, run, chart), 1).values()
        return corners

    def overlay(self, experiment: str, run: str) -> tuple[int, int]:
        """The last of the first overlay on a run's page, enlarged; the width and height of its file, in pixels."""
        card = self._open_chart(experiment, run, "overlay/")
        self._click(By.CSS_SELECTOR, "[role=slider]", card)
        slider = self._find(By.CSS_SELECTOR, "[role=slider]", card)

        def is_last() -> bool:
            if slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax"):
                return True
            slider.send_keys(Keys.ARROW_RIGHT)  # one more than needed, and MLflow goes to step infinity
            return False

        self._wait("last step", is_last)
        self._click(By.CSS_SELECTOR, ".rc-image img", card)
        return self._size(".rc-image-preview-img")

    def figure(self, experiment: str, run: str, path: str) -> tuple[int, int]:
        """A picture among a run's artifacts; the width and height of its file, in pixels."""
        self._open(f"experiments/{experiment}/runs/{run}/artifacts/{path}")
        return self._size("img[src^='blob:']")

    def description(self, experiment: str, run: str) -> str:
        """The text of a run's own page, which shows its note under the heading Description."""
        self._open(f"experiments/{experiment}/runs/{run}")
        return self._wait("description", lambda: self.text if "Description" in self.text else None)

    def models(self) -> str:
        """The text of the model registry."""
        self._open("models")
        self._find(By.CSS_SELECTOR, "a[href*='#/models/']")
        return self.text

    @property
    def text(self) -> str:
        """All text of the page."""
        return self.driver.execute_script("return document.body.innerText")

    def save(self, path: Path) -> None:
        """Write what is seen, once nothing moves any more, as a PNG of 256 colours."""
        shots = [b""]

        def rests() -> bool:
            shots.append(self.driver.get_screenshot_as_png())
            return shots[-1] == shots[-2]

        self._wait("rest", rests)
        with Image.open(io.BytesIO(shots[-1])) as image:
            image.convert("RGB").quantize(256).save(path, optimize=True)

    def _open(self, page: str, **query: str) -> None:
        self.driver.get("about:blank")  # another fragment alone does not load a page anew
        # Otherwise MLflow shows its other half, for language models. Last: its metric page wants `runs` to be first.
        query["workflowType"] = "machine_learning"
        self.driver.get(f"{self.url}/#/{page}?{urlencode(query, quote_via=quote)}")

    def _toggle_column(self, name: str) -> None:
        self._click(By.XPATH, "//button[starts-with(normalize-space(), 'Columns')]")
        search = self._find(By.CSS_SELECTOR, 'input[placeholder="Search columns"]')
        search.send_keys(name)

        def toggle() -> bool:
            found = self.driver.find_elements(By.XPATH, f"{_COLUMNS}//strong[text()='{name}']")
            # Open or not, depending on what came first, the words or the columns.
            for element in found or self.driver.find_elements(By.XPATH, f"{_COLUMNS}{_FOLDED}"):
                element.click()
            return bool(found)

        self._wait(f"column {name}", toggle)
        search.send_keys(Keys.ESCAPE)

    def _open_chart(self, experiment: str, run: str, title: str) -> WebElement:
        """The first chart on a run's page whose title has these words."""
        self._open(f"experiments/{experiment}/runs/{run}/model-metrics")
        return self._find(By.XPATH, f"//*[@data-testid='{_CARD}'][.//h4[contains(., '{title}')]]")

    def _lines(self, within: WebElement, runs: int) -> dict[str, int]:
        def lines() -> dict[str, int] | None:
            drawn = self.driver.execute_script(_LINES, within)
            return drawn if len(drawn) == runs else None

        return self._wait(f"lines of {runs} runs", lines)

    def _size(self, picture: str) -> tuple[int, int]:
        def size() -> tuple[int, int] | None:
            image = self.driver.find_element(By.CSS_SELECTOR, picture)
            width, height = (int(image.get_property(name)) for name in ("naturalWidth", "naturalHeight"))
            return (width, height) if width and image.is_displayed() else None

        return self._wait("picture", size)

    def _click(self, by: str, where: str, within: WebElement | None = None) -> None:
        def click() -> bool:
            (within or self.driver).find_element(by, where).click()
            return True

        self._wait(where, click)

    def _find(self, by: str, where: str, within: WebElement | None = None) -> WebElement:
        def displayed() -> WebElement | None:
            element = (within or self.driver).find_element(by, where)
            return element if element.is_displayed() else None

        return self._wait(where, displayed)

    def _wait(self, what: str, condition: Callable[[], Seen | None]) -> Seen:
        try:
            return WebDriverWait(self.driver, SECONDS, ignored_exceptions=_NOT_YET).until(lambda _: condition())
        except TimeoutException as error:
            picture = self.folder / "failure.png"
            self.driver.save_screenshot(str(picture))
            raise TimeoutException(f"{self.driver.current_url}: no {what}; see {picture}") from error


def main(url: str, folder: str) -> None:
    """Write the pictures of the README, of the last three runs of the experiment that was trained in last."""
    client = MlflowClient(url)
    runs = client.search_runs([item.experiment_id for item in client.search_experiments()], max_results=3)
    experiment, out = runs[0].info.experiment_id, Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    with Pages(url, out) as pages:
        pages.runs(experiment, METRIC)
        pages.save(out / "runs.png")
        pages.compared(experiment, [run.info.run_id for run in runs], METRIC)
        pages.save(out / "compare.png")
        pages.overlay(experiment, runs[0].info.run_id)
        pages.save(out / "overlay.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
