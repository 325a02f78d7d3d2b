"""The pages as a reader meets them, in a browser."""

import os
import shutil
from pathlib import Path

import pytest

NEEDS = "needs a browser: pip install playwright, and chromium on the path (apt install chromium)"


@pytest.fixture(scope="session")
def built(request):
    """The folder of the pages: the one that PAGES names, or else built from the stored outputs."""
    named = os.environ.get("PAGES")
    return Path(named).resolve() if named else request.getfixturevalue("html")


@pytest.fixture(scope="session")
def browser():
    """Chromium, by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason=NEEDS)
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip(NEEDS)
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser, built):
    """opened(chapter, width=…, …): its page in a window of its own, with what Playwright takes.

    At the end it has asked for nothing but files.
    """
    contexts, asked = [], []

    def open_page(chapter, width=1300, height=900, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((built / "book" / f"{chapter}.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
