"""The figures to touch that draw paths: the homotopy in space, and a weight drawn by hand."""

import re

import numpy as np
import pytest
from boards import assert_legible, colours, middle, ready, said

from ifcore import flow, forgetting, risk, weights

FIGURES = {"homotopy": "homotopy", "schedule": "optimal-schedules"}  # and their chapters
PHONE = {"width": 390, "height": 800, "has_touch": True, "is_mobile": True}
X8 = [[0, 3], [0, 0.5], [-0.5, 1], [-2, 1], [0.5, -2], [-0.5, 0.5], [0.5, -2], [-3.5, -2]]
LOGISTIC = risk.Risk(risk.linear, risk.logistic, X8, [1, 0, 0, 0, 1, 0, 1, 0], lam=0.5)
TWINS = forgetting.Problem([[0, 3], [0, 3], [2, 2]], [2, -1, -2], 0, [4, 4], 0.0, 0.5)
EVEN = np.linspace(0, 0.5, 10)  # the times of the knots at first


def numbers(box):
    """Those of the readout, in order."""
    return [float(found) for found in re.findall(r"-?\d+\.\d+", said(box).replace("−", "-"))]


def slider(box, name):
    return box.locator("label", has_text=name).locator("input")


def on_its_curve(box, name):
    """How many pixels of the curve that has a name's colour lie under that name."""
    return box.locator(".jxgbox").evaluate(
        """(board, name) => {
          const word = [...board.querySelectorAll("text")].find((t) => t.textContent === name);
          const { left, top, right, bottom } = word.getBoundingClientRect();
          const colour = getComputedStyle(word).fill;
          const inside = ({ x, y }) => left < x && x < right && top < y && y < bottom;
          return [...board.querySelectorAll("path")]
            .filter((p) => getComputedStyle(p).stroke === colour && p.getTotalLength())
            .flatMap((p) => [...Array(Math.ceil(p.getTotalLength())).keys()]
              .map((at) => p.getPointAtLength(at).matrixTransform(p.getScreenCTM())))
            .filter(inside).length;
        }""",
        name,
    )


def drag(page, start, to):
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*to, steps=5)
    page.mouse.up()


@pytest.mark.parametrize("width", [1300, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_whole_in_both_themes_and_widths(opened, name, theme, width):
    page = opened(FIGURES[name], width=width, color_scheme=theme)
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    box = ready(page, name)
    assert_legible(box)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert re.search(r"\d\.\d", box.locator(".touch-caption").inner_text())


@pytest.mark.parametrize("name", FIGURES)
def test_a_change_of_theme_keeps_what_the_reader_has_drawn(opened, name):
    page = opened(FIGURES[name])
    box = ready(page, name)
    if name == "homotopy":
        slider(box, "weight ε").fill("0.75")
    else:
        box.get_by_role("button", name="drop at once").click()
    before = said(box), colours(box)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(200)
    assert said(box) == before[0] and not before[1] & colours(box)


def test_the_homotopy_is_the_flow(opened):
    box = ready(opened("homotopy"), "homotopy")
    for epsilon, u, error in ((0.4, 0.5, 0), (1, 0.8, 0), (0, 0.2, 0), (0.25, 0.63, 0.01)):
        slider(box, "weight ε").fill(str(epsilon))
        slider(box, "time t").fill(str(u))
        w = weights.without(8, 0) + epsilon * np.eye(8)[0]
        times = [2 * u / (1 - u), 60]
        true = flow.gradient_flow(LOGISTIC, [-0.5, -0.4], times, w)
        shown = numbers(box)
        assert shown[:2] == [epsilon, round(times[0], 2)]
        np.testing.assert_allclose(shown[2:], true.ravel(), rtol=0, atol=0.005001 + error)


def test_the_homotopy_turns_by_keys_and_by_dragging(opened):
    page = opened("homotopy")
    box = ready(page, "homotopy")
    board, turn, tilt = box.locator(".jxgbox"), slider(box, "turn"), slider(box, "tilt")
    seen, before = [board.inner_html()], float(turn.input_value())
    board.press("ArrowRight")
    assert float(turn.input_value()) == before + 5
    seen.append(board.inner_html())
    x, y = middle(board)
    drag(page, (x, y), (x + 80, y + 20))
    assert abs(float(turn.input_value()) - before - 45) <= 1
    assert abs(float(tilt.input_value()) - 28) <= 1
    seen.append(board.inner_html())
    assert len(set(seen)) == 3
    slider(box, "weight ε").press("ArrowRight")
    assert numbers(box)[0] == 0.41


@pytest.mark.parametrize("width", [1300, 390])
def test_names_can_be_read_however_the_homotopy_is_turned(opened, width):
    box = ready(opened("homotopy", width=width), "homotopy")
    assert not on_its_curve(box, "optima")
    for turn in range(-180, 180, 45):
        for tilt, epsilon, u in ((0, 0, 1), (35, 0.4, 0.1), (90, 1, 0.5)):
            settings = {"turn": turn, "tilt": tilt, "weight ε": epsilon, "time t": u}
            for name, value in settings.items():
                slider(box, name).fill(str(value))
            assert_legible(box)
            assert not on_its_curve(box, "optima")


def linear(knots):
    """A `Schedule`, linear between knots (t, ε); two at one time make a jump."""
    pairs = [(a, b) for a, b in zip(knots, knots[1:]) if b[0] > a[0]]
    pieces = [
        lambda t, a=a, b=b: a[1] + (t - a[0]) * (b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs
    ]
    return weights.Schedule((0.0, *(b[0] for _, b in pairs)), tuple(pieces))


def test_what_a_drawn_weight_leaves_is_what_ifcore_says(opened):
    box = ready(opened("optimal-schedules"), "schedule")
    knots = [[t, 0.5] for t in EVEN]
    shown = numbers(box)
    assert shown[0] == pytest.approx(forgetting.objective(TWINS, linear(knots)).value, rel=1e-3)
    moves = {2: (3, 4), 5: (-2, 7), 8: (1, -6), 9: (5, -3)}  # of arrow keys: right, up
    for i, (right, up) in moves.items():
        point = box.get_by_role("application").nth(i)
        for _ in range(abs(right)):
            point.press("ArrowRight" if right > 0 else "ArrowLeft")
        for _ in range(abs(up)):
            point.press("ArrowUp" if up > 0 else "ArrowDown")
        knots[i] = [min(knots[i][0] + 0.01 * right, 0.5), knots[i][1] + 0.05 * up]
    true = forgetting.objective(TWINS, linear(knots)).value
    assert numbers(box)[0] == pytest.approx(true, rel=5e-4)
    assert numbers(box)[0] != shown[0]


def test_the_buttons_put_the_optimal_weight_and_none(opened):
    box = ready(opened("optimal-schedules"), "schedule")
    box.get_by_role("button", name="the optimal one").click()
    least = forgetting.optimal(TWINS).value
    value, times, other = numbers(box)
    assert [value, other] == pytest.approx([least, least], rel=1e-3) and times == 1
    box.get_by_role("button", name="drop at once").click()
    dropped = forgetting.objective(TWINS, weights.step(0.0)).value
    assert numbers(box)[:2] == pytest.approx([dropped, dropped / least], rel=1e-3)


@pytest.mark.parametrize("by", ["mouse", "finger"])
def test_a_point_of_the_weight_is_dragged_and_passes_no_other(opened, by):
    page = opened("optimal-schedules", **(PHONE if by == "finger" else {}))
    box = ready(page, "schedule")
    points = box.get_by_role("application")
    points.nth(4).scroll_into_view_if_needed()
    start, beyond = middle(points.nth(4)), middle(points.nth(7))
    to = beyond[0], start[1] - 300
    if by == "mouse":
        drag(page, start, to)
    else:
        finger = page.context.new_cdp_session(page)
        for kind, (x, y) in (
            ("Start", start),
            *(("Move", p) for p in (np.mean([start, to], 0), to)),
        ):
            touched = {"type": f"touch{kind}", "touchPoints": [{"x": x, "y": y}]}
            finger.send("Input.dispatchTouchEvent", touched)
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    label = points.nth(4).get_attribute("aria-label")
    assert label == f"Point 5 of 10: weight 1.00 at t = {EVEN[5]:.3f}"
    knots = [(t, 0.5) for t in EVEN]
    knots[4] = EVEN[5], 1.0
    true = forgetting.objective(TWINS, linear(knots)).value
    assert numbers(box)[0] == pytest.approx(true, rel=1e-3)
