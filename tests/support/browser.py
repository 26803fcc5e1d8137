"""The browser of the tests: a headless Chromium that `make tools` unpacks, so every machine has the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).parents[2] / ".tools" / "chromium"


@contextmanager
def launch() -> Iterator[Browser]:
    """Start the browser, with the fonts and libraries that it comes with."""
    assert (FOLDER / "chromium").exists(), "the browser is not there: run `make tools`"
    # Its own list of folders with fonts knows those of a cloud function only, and without a font it dies of some pages.
    fonts = str(Path(__file__).with_name("fonts.conf"))
    environment = {"LD_LIBRARY_PATH": str(FOLDER / "al2023/lib"), "FONTCONFIG_FILE": fonts}
    # No sandbox: it opens only our own pages, and containers and root have none to give.
    options = ["--no-sandbox", "--headless=shell", "--no-zygote"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=FOLDER / "chromium", args=options, env={"HOME": str(FOLDER), **environment}
        )
        try:
            yield browser
        finally:
            browser.close()
