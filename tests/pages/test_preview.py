"""What a link shows on the page where it stands, by pointer and by keys, and what it does not."""

import pytest

EQUATION = 'article p a[href="#equation-notes-0-13"]'
FOCUS = """(link) => {
  const all = [...document.querySelectorAll("article a")];
  all[all.indexOf(link) - 1].focus();
}"""
TWICE = """() => [...document.querySelectorAll("[id]")].map((e) => e.id)
  .filter((id, i, ids) => ids.indexOf(id) !== i)"""


@pytest.mark.parametrize(
    "chapter, link, said",
    [
        ("step-schedules", EQUATION, None),
        ("step-schedules", 'article p a[href="#thm-eigenvector-switch"]', "hitting time"),
        ("glossary", 'article dd a[href="#term-warm-start"]', "Training on from the parameters"),
    ],
    ids=["equation", "statement", "term"],
)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pointer_on_a_link_shows_what_it_leads_to(opened, chapter, link, said, theme):
    page = opened(chapter, color_scheme=theme)
    found, box = page.locator(link).first, page.locator("div.preview")
    found.hover()
    box.wait_for()
    number = found.inner_text()  # of an equation
    assert (said or number) in box.inner_text()
    assert page.evaluate(TWICE) == []
    place = box.bounding_box()
    assert 0 <= place["x"] and place["x"] + place["width"] <= 1300
    assert 0 <= place["y"] and place["y"] + place["height"] <= 900
    page.mouse.move(place["x"] + 30, place["y"] + 10, steps=4)
    page.wait_for_timeout(400)
    assert box.is_visible()  # as long as the pointer is on it
    page.keyboard.press("Escape")
    assert not box.count()


def test_the_focus_on_a_link_shows_it_and_goes_on_behind_the_link(opened):
    page = opened("step-schedules")
    link, box = page.locator(EQUATION).first, page.locator("div.preview")
    link.evaluate(FOCUS)
    page.keyboard.press("Tab")
    page.wait_for_timeout(100)  # the scroll that the focus may have made is over
    assert link.evaluate("e => e === document.activeElement") and box.is_visible()
    assert not box.locator("a[href], [tabindex], button").count()
    said = box.inner_text()
    page.keyboard.press("Tab")
    page.wait_for_timeout(100)
    assert not box.count() or box.inner_text() != said  # it is closed, or the next link's
    assert page.evaluate("document.querySelector('article').contains(document.activeElement)")
    assert not link.evaluate("e => e === document.activeElement")


def test_a_link_to_another_page_and_a_finger_show_nothing(opened):
    page = opened("step-schedules")
    page.locator('article p a[href^="least-squares-flow.html#"]').first.hover()
    page.wait_for_timeout(500)
    assert not page.locator("div.preview").count()
    phone = opened("step-schedules", width=390, is_mobile=True, has_touch=True)
    phone.locator(EQUATION).first.tap()
    phone.wait_for_timeout(500)
    assert not phone.locator("div.preview").count()
