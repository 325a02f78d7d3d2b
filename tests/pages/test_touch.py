"""The figures to touch: they react to keys, mouse and finger, and their numbers are right."""

import json
import re

import numpy as np
import pytest
import statsmodels.api as sm
from boards import assert_legible, colours, middle, ready, said, texts
from bs4 import BeautifulSoup
from sklearn.linear_model import LogisticRegression
from statsmodels.stats.outliers_influence import OLSInfluence

from ifcore import risk

FIGURES = {"leverage": "leverage", "fading": "influence-functions"}  # and their chapters
NUMBER = r"−?\d+(?:\.\d+)?"


def numbers_of(html, name):
    """What the page gives the figure."""
    text = (html / "book" / f"{FIGURES[name]}.html").read_text(encoding="utf-8")
    box = BeautifulSoup(text, "html.parser").find(
        "div", class_="touch", attrs={"data-figure": name}
    )
    return json.loads(box.find("script").string)


def read(text):
    return [float(found.replace("−", "-")) for found in re.findall(NUMBER, text)]


def where(page):
    """The coordinates of the handle of `leverage`, as the board has them."""
    return page.evaluate(
        "() => { const point = Object.values(JXG.boards).flatMap((b) => b.objectsList)"
        ".find((o) => o.rendNode?.getAttribute('role') === 'application');"
        "return [point.X(), point.Y()]; }"
    )


def pixels_of_a_unit(page):
    """Across and up, on the board of `leverage`."""
    board = "Object.values(JXG.boards)[0]"
    return np.array(page.evaluate(f"() => [{board}.unitX, {board}.unitY]"))


def diagnosed(numbers, at):
    """Leverage, residual, left-out residual and Cook's distance of the tenth, by statsmodels."""
    x, y = (np.append(numbers[key], v) for key, v in zip(("inputs", "targets"), at))
    found = OLSInfluence(sm.OLS(y, sm.add_constant(x)).fit())
    parts = found.hat_matrix_diag, found.resid, found.resid_press, found.cooks_distance[0]
    return [part[-1] for part in parts]


def assert_says_the_diagnostics(page, box, numbers):
    at = where(page)
    x, y, h, r, _, left, D = read(said(box))
    assert np.allclose([x, y, r, left, D], [*at, *diagnosed(numbers, at)[1:]], rtol=0, atol=0.0051)
    assert abs(h - diagnosed(numbers, at)[0]) < 0.00051


def test_the_point_that_is_moved_has_its_diagnostics(opened, html):
    page, numbers = opened("leverage"), numbers_of(html, "leverage")
    box = ready(page, "leverage")
    handle = box.locator("[role=application]")
    assert np.allclose(where(page), numbers["start"], atol=1e-9)
    assert_says_the_diagnostics(page, box, numbers)

    handle.focus()
    for key, move in (("ArrowUp", (0, 0.25)), ("ArrowLeft", (-0.25, 0))):
        before = where(page)
        handle.press(key)
        assert np.allclose(where(page), np.add(before, move), atol=1e-9)
        assert_says_the_diagnostics(page, box, numbers)

    before, (across, down) = where(page), middle(handle)
    page.mouse.move(across, down)
    page.mouse.down()
    page.mouse.move(across - 120, down - 90, steps=5)
    page.mouse.up()
    assert where(page)[0] < before[0] - 1 and where(page)[1] > before[1] + 1
    assert np.allclose(middle(handle), (across - 120, down - 90), atol=2)
    assert_says_the_diagnostics(page, box, numbers)

    nine = np.polyfit(numbers["inputs"], numbers["targets"], 1)
    far, unit = (7.3, 7.3 * nine[0] + nine[1] + 0.12), pixels_of_a_unit(page)
    (right, up), (across, down) = np.subtract(far, where(page)) * unit, middle(handle)
    page.mouse.move(across, down)
    page.mouse.down()
    page.mouse.move(across + right, down - up, steps=5)
    page.mouse.up()
    at, near = where(page), 1.5 / unit.min()
    assert np.allclose(at[0], far[0], atol=near) and np.isclose(at[1], np.polyval(nine, at[0]))
    assert_says_the_diagnostics(page, box, numbers)
    assert "Cook's distance 0.00" in said(box)
    handle.press("ArrowUp")
    assert np.allclose(where(page), np.add(at, (0, 0.25)), atol=1e-9)
    handle.press("ArrowDown")
    assert np.allclose(where(page), at, atol=1e-9)

    still = middle(box.locator(".jxgbox svg text").first)
    for key in ("Shift+ArrowLeft", "Control+ArrowUp"):
        handle.press(key)
        assert np.allclose(middle(box.locator(".jxgbox svg text").first), still, atol=0.1)

    for _ in range(60):
        handle.press("ArrowRight")
    assert where(page)[0] == 9  # it stays on the board


def test_a_finger_moves_the_point_and_elsewhere_the_page(opened):
    page = opened("leverage", width=390, has_touch=True, is_mobile=True)
    box, finger = ready(page, "leverage"), page.context.new_cdp_session(page)

    def swipe(x, y, down):
        for kind, part in (("touchStart", 0), *(("touchMove", i / 10) for i in range(1, 11))):
            touched = [{"x": x, "y": y + part * down}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})
            page.wait_for_timeout(20)
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_timeout(200)

    before, top = where(page), page.evaluate("scrollY")
    swipe(*middle(box.locator("[role=application]")), -80)
    assert where(page)[1] > before[1] + 1 and page.evaluate("scrollY") == top
    moved, board = where(page), box.locator(".jxgbox").bounding_box()
    swipe(board["x"] + 60, board["y"] + 100, 80)
    assert page.evaluate("scrollY") < top - 30 and where(page) == moved


@pytest.fixture
def refit(root):
    """refit(name, w): θ where the point has the weight w, by scikit-learn from the cell's data."""
    chapter = json.loads((root / "book" / "influence-functions.ipynb").read_text(encoding="utf-8"))
    source = next("".join(c["source"]) for c in chapter["cells"] if c["id"] == "fading-points")
    data = {"np": np, "risk": risk}
    exec(source, data)

    def fitted(name, w):
        weights = np.ones(len(data["labels"]))
        weights[len(data["grid"]) + list(data["faded"]).index(name)] = w
        options = {"solver": "newton-cholesky", "tol": 1e-12, "fit_intercept": False}
        model = LogisticRegression(C=1 / 0.1, **options)
        return model.fit(data["inputs"], data["labels"], weights).coef_[0]

    return fitted


def test_the_point_that_fades_has_its_parameters_and_gaps(opened, html, refit):
    page, numbers = opened("influence-functions"), numbers_of(html, "fading")
    box = ready(page, "fading")
    slider, choice = box.locator("input[type=range]"), box.locator("select")
    for turn, name in enumerate(numbers["paths"]):
        choice.select_option(name)
        slider.focus()
        before = float(slider.input_value())
        slider.press("ArrowLeft")
        assert abs(float(slider.input_value()) - (before - 0.025)) < 1e-9
        assert_says_the_path(box, refit, name)
        place = slider.bounding_box()
        share = (0.2, 0.9, 0.6)[turn]
        page.mouse.click(place["x"] + share * place["width"], place["y"] + place["height"] / 2)
        assert abs(float(slider.input_value()) - share) < 0.05
        assert_says_the_path(box, refit, name)


def slope(refit, name, end):
    """∂θ/∂w at the weight 0 or 1, by a difference quotient of refits, of second order."""
    step = 1e-3 if end == 0 else -1e-3
    near = [refit(name, end + k * step) for k in range(3)]
    return (4 * near[1] - near[2] - 3 * near[0]) / (2 * step)


def assert_says_the_path(box, refit, name):
    """θ(w), both linearisations, and their gaps in per cent of the whole change."""
    text = said(box)
    assert text.startswith(f"{name}, weight")
    w, *shown, one_1, one_2, gap_one, end, zero_1, zero_2, gap_zero = read(
        text.replace("at 1:", "")
    )
    assert end == 0
    theta, change = refit(name, w), np.linalg.norm(refit(name, 1) - refit(name, 0))
    assert np.allclose(shown, theta, rtol=0, atol=0.00051)
    for at, found, gap in ((1, (one_1, one_2), gap_one), (0, (zero_1, zero_2), gap_zero)):
        linear = refit(name, at) + (w - at) * slope(refit, name, at)
        assert np.allclose(found, linear, rtol=0, atol=0.00051)
        assert abs(gap - 100 * np.linalg.norm(linear - theta) / change) < 0.051


@pytest.mark.parametrize("width", [1300, 390])
@pytest.mark.parametrize("name", FIGURES)
def test_the_words_are_whole_and_apart_wherever_the_figure_is_taken(opened, name, width):
    page = opened(FIGURES[name], width=width)
    box = ready(page, name)
    assert_legible(box)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if name == "leverage":
        for keys in (["ArrowUp"] * 40, ["ArrowLeft"] * 24, ["ArrowLeft"] * 20, ["ArrowDown"] * 40):
            for key in keys:
                box.locator("[role=application]").press(key)
            assert_legible(box)
    else:
        for option in box.locator("option").all():
            box.locator("select").select_option(option.inner_text())
            words = [word["said"] for word in texts(box.locator(".jxgbox").first)]
            tangents = [f"tangent at {end}" for end in (0, 1)]
            assert sorted(w for w in words if "tangent" in w) == (
                [] if option.inner_text() == "benign" else tangents
            )
            for key in ("Home", "End"):
                box.locator("input").press(key)
                assert_legible(box)


@pytest.mark.parametrize("name", FIGURES)
def test_a_change_of_theme_keeps_what_the_reader_has_set(opened, name):
    page = opened(FIGURES[name])
    box = ready(page, name)
    box.locator("[role=application], input").press("ArrowLeft")
    before = said(box), colours(box)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(200)
    assert said(box) == before[0] and box.locator("svg").count() == box.locator(".jxgbox").count()
    assert not before[1] & colours(box)
    assert_legible(box)
