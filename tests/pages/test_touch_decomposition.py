"""The gaps to choose from: what the figure says and draws is what the stored tables hold."""

import csv
import gzip
import json
import re
from functools import cache

import numpy as np
import pytest
from boards import assert_legible, colours, ready, said
from bs4 import BeautifulSoup

GAPS = ("warm-start", "proximity", "non-convergence", "linearization", "solver")
VARIANTS = {"0.01": "base", "0.001": "light"}  # of each damping
FLOOR = 1e-7
POWER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
CASES = [  # model, n, how often ← is pressed from the last of the steps, damping
    ("MLP, Concrete", "1030", 2, "0.01"),
    ("MLP, Concrete", "100", 3, "0.001"),
    ("MLP, digits", "300", 1, "0.001"),
    ("logistic, cancer", "569", 1, "0.01"),
    ("softmax, digits", "1000", 4, "0.01"),
    ("linear, Concrete", "1030", 0, "0.001"),
    ("convolutional", "100", 0, "0.01"),
]


@pytest.fixture
def stored(root):
    return tables(root / "book" / "tables" / "decomposition")


@cache
def tables(folder):
    """{(task, n): rows of the table}, read without ifbook."""
    found = {}
    for about in sorted(folder.glob("*.json")):
        of = json.loads(about.read_text("utf-8"))["experiment"]
        with gzip.open(about.with_suffix(".csv.gz"), "rt", encoding="utf-8") as file:
            found[of["task"], str(of["n"])] = list(csv.DictReader(file))
    return found


def part(rows, steps, damping, none=False):
    """The rows of one decomposition, with a removal or with none."""
    plan = [r for r in rows if (r["steps"], r["variant"]) == (steps, VARIANTS[damping])]
    return [r for r in plan if (r["removed"] == "none") == none]


def column(rows, name):
    return np.array([float(row[name]) for row in rows])


def lines(rows, steps, damping):
    """What the figure has to say, a list of numbers for each of its lines."""
    removed, none = (part(rows, steps, damping, which) for which in (False, True))
    found = []
    for gap in (*GAPS, "direct"):
        low, middle, high = np.sort(np.quantile(column(removed, gap), [0.1, 0.5, 0.9]))
        found.append([middle, low, high] if high >= FLOOR else [middle])
        if gap != "direct":
            control, effect = column(none, gap), column(removed, f"{gap}, effect")
            found[-1] += [np.median(control), np.median(effect)]
    ratios = []
    for kind in ("", ", effect"):
        sizes = [column(removed, gap + kind) for gap in GAPS]
        ratios.append(np.median(sum(sizes[:3]) / sum(sizes[3:])))
    return [*found, ratios]


def read(line):
    """The numbers of a line; one that is below the floor is 0."""
    found = re.findall(r"below 10⁻⁷|\d[\d.]*(?:·10[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)?", line)
    digits = (text.translate(POWER).replace("·10", "e") for text in found)
    return [0.0 if text.startswith("below") else float(text.rstrip(".")) for text in digits]


def choose(box, name, value):
    box.locator("label", has_text=name).locator("select").select_option(value)


def options(box, name):
    return (
        box.locator("label", has_text=name)
        .locator("option")
        .evaluate_all("(all) => all.map((option) => option.value)")
    )


def put(box, model, n, left, damping):
    """The choice of a case, its steps by the arrow keys; says them."""
    choose(box, "model", model)
    choose(box, "examples", n)
    slider = box.locator("input")
    slider.press("End")
    for _ in range(left):
        slider.press("ArrowLeft")
    choose(box, "damping", damping)
    return trained(box)


def trained(box):
    """The steps that are chosen, as the tables call them."""
    return box.locator("label", has_text="steps").locator("span").last.inner_text().replace(",", "")


def assert_says_the_table(box, rows, steps, damping):
    _, *shown = said(box).splitlines()
    true = lines(rows, steps, damping)
    assert len(shown) == len(true) == 7
    for text, values in zip(shown, true):
        values = np.where(np.array(values) < FLOOR, 0, values)
        np.testing.assert_allclose(read(text), values, rtol=0.00501, err_msg=text)


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case)))
def test_what_is_said_is_in_the_table(opened, stored, case):
    model, n, _, damping = case
    box = ready(opened("error-decomposition"), "decomposition")
    steps = put(box, *case)
    head = said(box).splitlines()[0].replace(",", "")
    assert head.startswith(f"{model.replace(',', '')} n = {n} ") and f"damping {damping}" in head
    assert ("trained to a minimum" if steps == "settled" else f" {steps} steps") in head
    assert_says_the_table(box, stored[model, n], steps, damping)


def test_a_key_and_a_pointer_choose(opened, stored):
    page = opened("error-decomposition")
    box = ready(page, "decomposition")
    slider, model = box.locator("input"), box.locator("select").first
    assert_says_the_table(box, stored["MLP, Concrete", "1030"], "1000", "0.01")
    slider.press("ArrowLeft")
    assert_says_the_table(box, stored["MLP, Concrete", "1030"], "300", "0.01")
    place = slider.bounding_box()
    page.mouse.click(place["x"] + 0.95 * place["width"], place["y"] + place["height"] / 2)
    assert_says_the_table(box, stored["MLP, Concrete", "1030"], "settled", "0.01")
    model.press("ArrowDown")
    name, n = model.input_value(), options(box, "examples")[-1]
    assert name != "MLP, Concrete" and "trained to a minimum" in said(box)
    assert_says_the_table(box, stored[name, n], "settled", "0.01")


def test_what_can_be_chosen_is_what_is_stored(opened, stored):
    box = ready(opened("error-decomposition"), "decomposition")
    assert set(options(box, "model")) == {name for name, _ in stored}
    for name in options(box, "model"):
        choose(box, "model", name)
        sizes = options(box, "examples")
        assert sorted(sizes) == sorted(n for task, n in stored if task == name)
        last = int(box.locator("input").get_attribute("max"))
        for n in sizes:
            rows, plans = stored[name, n], set()
            choose(box, "examples", n)
            for step in range(last + 1):
                box.locator("input").fill(str(step))
                plans |= {(trained(box), VARIANTS[d]) for d in options(box, "damping")}
            kept = {(r["steps"], r["variant"]) for r in rows}
            assert plans == {plan for plan in kept if plan[1] in VARIANTS.values()}


def shapes(box):
    """The lines on the board: their looks, where they begin and end, and whether they are drawn."""
    return box.locator("svg path").evaluate_all(
        """(all) => all.map((path) => {
          const {fillOpacity, strokeWidth, stroke} = getComputedStyle(path);
          const {x, width} = path.getBBox();
          const drawn = path.getAttribute("d") !== "M 0 0"; // of nothing
          return {fill: +fillOpacity, pen: parseFloat(strokeWidth), stroke, x, width, drawn};
        })"""
    )


@pytest.mark.parametrize("width", [1300, 390])
def test_the_bars_and_their_marks_stand_where_the_numbers_are(opened, stored, width):
    box = ready(opened("error-decomposition", width=width), "decomposition")
    for case in CASES:
        steps = put(box, *case)
        *true, _ = lines(stored[case[:2]], steps, case[3])
        found = shapes(box)
        grid = [s["x"] for s in found if s["pen"] == 1 and s["drawn"]]  # decades from the floor
        decade = np.median(np.diff(grid))

        def at(value):
            return grid[0] + decade * np.log10(max(value, FLOOR) / FLOOR)

        bars = [s for s in found if s["fill"] in (0.4, 0.12) and s["pen"] == 2]
        assert [bar["fill"] for bar in bars] == [0.4] * 3 + [0.12] * 2 + [0.4]
        for bar, values in zip(bars, true, strict=True):
            assert abs(bar["x"] + bar["width"] - at(values[0])) < 0.5
        _, *ticks = (s for s in found if s["pen"] == 3.5)  # the first is the key's
        _, *rings = (s for s in found if s["fill"] == 1 and s["pen"] == 2)
        ink = ticks[0]["stroke"]
        _, *spans = (s for s in found if s["pen"] == 1.5 and s["stroke"] == ink)
        for k, values in enumerate(true[:5]):
            for mark, value in zip((ticks[k], rings[k]), values[-2:]):
                assert mark["drawn"] == (value >= FLOOR)
                if mark["drawn"]:
                    assert abs(mark["x"] + mark["width"] / 2 - at(value)) < 0.5
            assert spans[k]["drawn"] == (len(values) == 5)
            if len(values) == 5:
                assert abs(spans[k]["x"] - at(values[1])) < 0.5
                assert abs(spans[k]["x"] + spans[k]["width"] - at(values[2])) < 0.5


@pytest.mark.parametrize("width", [1300, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_is_whole_in_both_themes_and_widths(opened, theme, width):
    page = opened("error-decomposition", width=width, color_scheme=theme)
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    box = ready(page, "decomposition")
    for case in CASES:
        put(box, *case)
        assert_legible(box)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_change_of_theme_keeps_the_choice(opened):
    page = opened("error-decomposition")
    box = ready(page, "decomposition")
    put(box, *CASES[2])
    before = said(box), colours(box)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(200)
    assert said(box) == before[0] and not before[1] & colours(box)


def test_the_page_gives_little_and_the_caption_counts(opened, html, stored):
    text = (html / "book" / "error-decomposition.html").read_text(encoding="utf-8")
    box = BeautifulSoup(text, "html.parser").find(attrs={"data-figure": "decomposition"})
    assert len(box.find("script").string.encode()) < 60_000
    ratios = []
    for (name, _), rows in stored.items():
        if name not in ("linear, Concrete", "logistic, cancer", "softmax, digits"):
            plans = {(r["steps"], r["variant"]) for r in rows}
            dampings = {variant: damping for damping, variant in VARIANTS.items()}
            chosen = [(steps, dampings[v]) for steps, v in plans if v in dampings]
            if "batches" not in name and "128" not in name:
                ratios += [lines(rows, *plan)[-1] for plan in chosen]
    whole, effect = np.transpose(ratios)
    caption = ready(opened("error-decomposition"), "decomposition").locator(".touch-caption")
    counts = [int(found) for found in re.findall(r"\d+", caption.inner_text())]
    assert counts == [(whole > 1).sum(), len(whole), (whole > 10).sum(), (effect > 10).sum()]
