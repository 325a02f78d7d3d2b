"""The pages as a reader meets them, in a browser."""

import os
import shutil

import pytest

NEEDS = (
    "no chromium on the path, and none that CHROME names: the tests in a browser are left out; "
    "`apt-get install chromium` adds them"
)


@pytest.fixture(scope="session")
def browser():
    """Chromium, by Playwright: the one that CHROME names, or the one on the path."""
    chromium = os.environ.get("CHROME") or shutil.which("chromium")
    if chromium is None:
        pytest.skip(NEEDS)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


# What moves after it was laid out, added up.
WATCH = """
window.shift = 0;
new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
  if (!entry.hadRecentInput) window.shift += entry.value;
})).observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture
def opened(browser, html):
    """opened(page, width=…, …): it, in a window of its own, with what Playwright takes.

    At the end no script has failed, and nothing was asked for but files.
    """
    contexts, asked, failed = [], [], []

    def open_page(name, width=1300, height=900, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda m: m.type == "error" and failed.append(m.text))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.add_init_script(WATCH)
        page.goto((html / "book" / f"{name}.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not failed
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
