"""Every page in a browser: on a desktop and on a phone, by day and in the dark, without scripts.

axe-core 4.14.1 (axe.min.js, MPL 2.0, from the npm package, unchanged) says what those miss who
read by ear, by keys, or with little colour.
"""

import re
from pathlib import Path

import pytest
import yaml

from ifbook import figures

ROOT = Path(__file__).parents[2]
AXE = Path(__file__).with_name("axe.min.js")
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
LISTED = [TOC["root"], *(page["file"] for part in TOC["parts"] for page in part["chapters"])]
PAGES = [Path(name).name for name in LISTED]
WIDTH, PHONE = 1300, 390
OTHER = {"light": "dark", "dark": "light"}
COLOURS = ["color-contrast", "link-in-text-block"]  # the rules of axe that a theme may break
ON_A_PHONE_IN_THE_DARK = pytest.mark.parametrize(
    "width, theme", [(WIDTH, "light"), (PHONE, "dark")], ids=["desktop", "phone-dark"]
)
named = pytest.mark.parametrize("name", PAGES)

# The formulas' boxes, thousands of them alike, are looked at on one page alone; a header that is a
# formula is not empty, as MathML, which axe does not read, says it.
MISSED = """([inside, rules]) =>
  axe.run(inside ? document : {exclude: [[".katex"]]}, {preload: false, ...rules})
.then((found) => found.violations.flatMap((v) => v.nodes
  .filter((n) => v.id !== "empty-table-header" || !document.querySelector(n.target[0] + " math"))
  .map((n) => `${v.id}: ${n.html}`)))"""
# What is wider than the window, or than what cuts it, and in nothing that scrolls; a line that
# opens may be cut.
CUT = """() => [...document.querySelectorAll("article *")].filter((e) => {
  if (e.closest(".katex-mathml, svg, .jxgbox, details:not([open]) > summary")) return false;
  if (!e.getClientRects().length) return false;
  const right = e.getBoundingClientRect().right;
  for (let up = e; up; up = up.parentElement) {
    const overflow = getComputedStyle(up).overflowX;
    if (["auto", "scroll"].includes(overflow)) return false;
    const cuts = up !== e && ["hidden", "clip"].includes(overflow);
    if (cuts && e.matches(".base, img, table, pre, code")
        && right > up.getBoundingClientRect().right + 1) return true;
  }
  return right > innerWidth + 1;
}).map((e) => e.outerHTML.slice(0, 200))"""
UNREACHED = """() => [...document.querySelectorAll("article *")].filter((e) =>
  ["auto", "scroll"].includes(getComputedStyle(e).overflowX)
  && e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0 && !e.querySelector("a, button, input")
).map((e) => e.outerHTML.slice(0, 200))"""
SHARE = """() => {
  const height = (e) => e.getBoundingClientRect().height;
  const open = [...document.querySelectorAll("article div.cell_input")]
    .filter((e) => !e.closest("details:not([open])"));
  return open.reduce((sum, e) => sum + height(e), 0) / height(document.querySelector("article"));
}"""


@named
@ON_A_PHONE_IN_THE_DARK
def test_a_page_is_quiet_still_whole_and_misses_nobody(opened, name, width, theme):
    page = opened(name, width, color_scheme=theme)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.evaluate("window.shift") < 0.05
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert not page.evaluate(CUT)
    assert not page.evaluate(UNREACHED)
    page.add_script_tag(path=AXE)
    assert not page.evaluate(MISSED, [name == "notation", {}])
    page.evaluate("theme => document.documentElement.dataset.theme = theme", OTHER[theme])
    assert not page.evaluate(MISSED, [name == "notation", {"runOnly": COLOURS}])


# Formulas whose full stop begins the next line, but for those that fill theirs; and formulas that
# are cut, which may take the bar from a letter.
PARTED = """() => [...document.querySelectorAll("article span.math:not(.wide)")].filter((e) => {
  const after = e.nextSibling, base = [...e.querySelectorAll(".base")].at(-1);
  if (!base || !base.getClientRects().length) return false;
  if (getComputedStyle(e).overflow !== "visible") return true;
  if (after?.nodeType !== 3 || !/^[.,;:)]/.test(after.data)) return false;
  const sign = document.createRange();
  sign.setStart(after, 0);
  sign.setEnd(after, 1);
  return sign.getBoundingClientRect().left < base.getBoundingClientRect().right - 3;
}).map((e) => e.parentElement.textContent)"""


@pytest.mark.parametrize("width", [WIDTH, PHONE])
@pytest.mark.parametrize("name", ["leverage", "estimators", "neurons-path"])
def test_no_line_begins_with_the_full_stop_of_a_formula(opened, name, width):
    assert not opened(name, width).evaluate(PARTED)


@named
def test_open_code_is_below_a_fifth_of_a_page(opened, name):
    page = opened(name)
    assert page.evaluate(SHARE) < 0.2


@pytest.mark.parametrize("name", ["index", "leverage", "ledger"])
def test_a_page_is_read_without_scripts(opened, name):
    page = opened(name, java_script_enabled=False)
    article = page.locator("article")
    assert article.locator(".katex-html").first.is_visible()
    assert len(article.inner_text()) > 1500
    assert all(
        box.bounding_box() is None or box.bounding_box()["height"] == 0
        for box in article.locator("div.touch").all()
    )
    if name == "ledger":
        line = article.locator("details").first
        line.locator("summary").click()
        assert line.locator("p").first.is_visible()


def test_a_link_opens_the_fold_that_it_leads_into(opened):
    page = opened("ledger")
    link = page.locator("div.ledger details a[href*='#claim-']").first
    target = link.evaluate("e => e.href")
    page.goto(target)
    place = page.locator(f"[id='{target.partition('#')[2]}']")
    assert place.evaluate("e => !e.closest('details:not([open])')")
    folds = page.locator("article details:not([open])")
    inner = folds.first.evaluate("""(fold) => {
        const e = fold.querySelector(":scope > :not(summary)");
        e.id = "within"; return e.id; }""")
    page.evaluate(f"location.hash = '{inner}'")
    page.wait_for_function("document.getElementById('within').closest('details').open")


def test_the_labels_of_figures_have_nine_pixels_on_a_phone(opened):
    """The smallest of a chapter's sizes in points, at the scale of the picture on the page."""
    for path in [ROOT / "book" / "index.md", *sorted((ROOT / "book").glob("*.ipynb"))]:
        text = path.read_text(encoding="utf-8")
        sizes = [float(size) for size in re.findall(r"(?:fontsize|labelsize)=([\d.]+)", text)]
        page = opened(path.stem, PHONE)
        for width, drawn, kind in page.locator("figure img[src*='_images/']").evaluate_all(
            "(es) => es.map((e) => [e.getBoundingClientRect().width, e.naturalWidth, e.src])"
        ):
            inch = 96 if kind.endswith("svg") else figures.DPI
            assert min([7.5, *sizes]) / 72 * width / (drawn / inch) >= 9, path.stem
        page.close()


def test_print_opens_every_fold_and_cuts_no_code(opened):
    page = opened("leverage", width=700)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not page.locator("article details:not([open])").count()
    over = "(es) => es.filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    assert page.locator("article pre").evaluate_all(over) == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("article details:not([open])").count()


# A filter or an order of the ledger, and the same lines laid out anew, in turns, in milliseconds.
TAKES = """async (act) => {
  const bar = document.querySelector(".ledger-filter"), ledger = document.querySelector(".ledger");
  const settle = () => document.body.getBoundingClientRect().height;
  const take = (work) => { settle(); const t = performance.now(); work(); settle();
                           return performance.now() - t; };
  const [verdict, part, order] = bar.querySelectorAll("select");
  const word = bar.querySelector("input");
  const acts = {
    filter: (i) => { word.value = i % 2 ? "leverage" : "";
                     word.dispatchEvent(new Event("input", {bubbles: true})); },
    order: (i) => { order.selectedIndex = (i + 1) % 2;
                    order.dispatchEvent(new Event("change", {bubbles: true})); },
  };
  const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];
  const found = {it: [], again: []};
  for (let i = 0; i < 9; i++) {
    found.it.push(take(() => acts[act](i)));
    found.again.push(take(() => { ledger.hidden = true; settle(); ledger.hidden = false; }));
  }
  return median(found.it) / median(found.again);
}"""


@pytest.mark.parametrize("act", ["filter", "order"])
def test_the_ledger_answers_in_the_time_of_laying_it_out(opened, act):
    """Which is a few hundredths of a second; a time of its own would be noise."""
    page = opened("ledger")
    assert page.evaluate(TAKES, act) < 3


def test_the_ledger_filters_by_verdict_part_and_word(opened):
    page = opened("ledger")
    lines = page.locator("div.ledger > details:visible")
    every = lines.count()
    verdict, part, _ = page.locator(".ledger-filter select").all()
    verdict.select_option("false")
    assert 0 < lines.count() < every
    said = lines.locator(".verdict").all_inner_texts()
    assert {text.strip("✗ ") for text in said} == {"false"}
    verdict.select_option("")
    page.locator(".ledger-filter input").fill("leverage")
    assert 0 < lines.count() < every
    assert page.locator(".ledger-filter output").inner_text().startswith(str(lines.count()))
    page.locator(".ledger-filter input").fill("")
    part.select_option("training paths")
    assert 0 < lines.count() < every
