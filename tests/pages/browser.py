"""A real browser for the tests of pages: the distribution's Chromium, without a window, driven by Selenium.

Without it the tests are skipped, with the reason. Nothing is downloaded: the browser and its driver are named by path.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

INSTALL = "on Debian: apt-get install chromium chromium-driver"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
PATIENCE = 20.0  # seconds until something that should be there is missed


class Browser:
    """A page in a browser, with what it has written to the console and asked of the network.

    Attributes:
        driver: Selenium's driver, for what is not offered here.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self._errors: list[str] = []
        self._requests: list[str] = []

    def open(self, path: Path, width: int = 1280, height: int = 900, is_dark: bool = False) -> float:
        """Open a file from disk, and wait until it is loaded; ``width`` and ``height`` are in CSS pixels.

        Returns:
            The seconds that it took until its scripts had run.
        """
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        self._collect()
        self._errors.clear()
        self._requests.clear()
        start = time.perf_counter()
        self.driver.get(path.resolve().as_uri())
        return time.perf_counter() - start

    def resize(self, width: int, height: int) -> None:
        """Give the page another size, in CSS pixels; up to 500 in width it is a telephone's."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width <= 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def errors(self) -> list[str]:
        """Errors and warnings in the console since the page was opened, uncaught exceptions included."""
        self._collect()
        return list(self._errors)

    def requests(self) -> list[str]:
        """Addresses that the page asked for since it was opened, apart from itself and what it holds as data."""
        self._collect()
        own = self.driver.current_url.split("#")[0]
        return [url for url in self._requests if url.split("#")[0] != own and not url.startswith(("data:", "blob:"))]

    def find(self, css: str) -> Any:
        """Find the first element that a CSS selector matches, which must be there or come soon."""
        return self.until(lambda: next(iter(self.all(css)), None), css)

    def all(self, css: str) -> list[Any]:
        """Find the elements that a CSS selector matches now."""
        return self.driver.find_elements("css selector", css)

    def texts(self, css: str) -> list[str]:
        """Read the texts of the elements that a CSS selector matches now, hidden ones included."""
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.trim())", css)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page, as the body of a function of ``arguments``, and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """Press keys, such as ``Keys.TAB`` or ``"a"``, wherever the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Wait until a condition is true or not empty, and return its value."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < end, f"did not come: {what}"
            time.sleep(0.02)
        return value

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Save what is to be seen as a PNG file; ``whole``: the page down to its end."""
        import base64

        options = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _collect(self) -> None:
        """Take what Chromium has logged; each message is given once."""
        for entry in self.driver.get_log("browser"):
            if entry["level"] in ("SEVERE", "WARNING"):
                self._errors.append(entry["message"])
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._requests.append(message["params"]["request"]["url"])


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start one browser for all tests of a process."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver_program = shutil.which("chromedriver")
    if program is None or driver_program is None:
        pytest.skip(f"there is no {'Chromium' if program is None else 'chromedriver'}; {INSTALL}")
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed: pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    profile = tmp_path_factory.mktemp("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}", *["--no-sandbox"] * (os.geteuid() == 0)):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver_program)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """Lend the browser to a test, and leave it on an empty page."""
    yield chromium
    chromium.driver.get("about:blank")
