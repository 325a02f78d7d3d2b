"""What the tests of figures to touch share: a figure on its page, and the words on its boards."""

from itertools import combinations


def ready(page, name):
    """The box of the figure, once it is drawn."""
    box = page.locator(f"div.touch[data-figure={name}]")
    box.scroll_into_view_if_needed()
    page.wait_for_selector(f"div.touch[data-figure={name}][data-ready]")
    box.scroll_into_view_if_needed()
    return box


def said(box):
    return box.locator("> output[aria-live=polite]").inner_text()


def middle(element):
    box = element.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def texts(board):
    """The words on a board: what they say, their size, and their rectangle."""
    return board.evaluate(
        """(board) => [...board.querySelectorAll("text")]
          .filter((t) => t.checkVisibility({visibilityProperty: true}) && t.textContent.trim())
          .map((t) => {
            const {left, top, right, bottom} = t.getBoundingClientRect();
            const size = parseFloat(getComputedStyle(t).fontSize);
            return {said: t.textContent, size, box: [left, top, right, bottom]};
          })"""
    )


def overlap(a, b):
    (left, top, right, bottom), (x, y, x_end, y_end) = a, b
    return min(right, x_end) - max(left, x) > 1 and min(bottom, y_end) - max(top, y) > 4


def assert_legible(box):
    """Every word on the boards can be read, whole, and no word lies on another."""
    for board in box.locator(".jxgbox").all():
        assert board.get_attribute("role") and len(board.get_attribute("aria-label")) > 20
        frame, words = board.bounding_box(), texts(board)
        assert len(words) >= 5
        for word in words:
            left, top, right, bottom = word["box"]
            assert word["size"] >= 9, word
            assert left >= frame["x"] - 1 and right <= frame["x"] + frame["width"] + 1, word
            assert top >= frame["y"] - 1 and bottom <= frame["y"] + frame["height"] + 1, word
        for a, b in combinations(words, 2):
            assert not overlap(a["box"], b["box"]), (a, b)


def colours(box):
    """Those of the words on the boards."""
    words = box.locator("svg text")
    return set(words.evaluate_all("(all) => all.map((t) => getComputedStyle(t).fill)"))
