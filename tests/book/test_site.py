"""What is mended in the pages after the theme and the writers: names, sizes, bytes."""

import re
import struct

import pytest
from bs4 import BeautifulSoup
from pygments.token import STANDARD_TYPES

from ifbook import site


def test_boxes_of_one_style_share_a_class_and_look_as_before():
    body = (
        '<span class="mord" style="margin-right:0.2em;">x</span>'
        '<span class="mspace" style="margin-right:0.2em;"></span>'
        '<span class="strut" style="height:1em;"></span>'
    )
    found, sheet = site.mended(body, {})
    assert "style=" not in found
    rules = dict(rule.split("{") for rule in sheet.strip("}").split("}"))
    for before, after in zip(
        *(BeautifulSoup(b, "html.parser").find_all("span") for b in (body, found))
    ):
        own = [name for name in after["class"] if name not in before["class"]]
        assert len(own) == 1 and rules["." + own[0]] == before["style"]
        assert not [kind for kind in STANDARD_TYPES.values() if kind and own[0].startswith(kind)]


def test_a_line_may_end_between_the_parts_of_a_formula():
    parts = '<span class="base">a</span><span class="base">b</span>'
    assert site.mended(parts, {})[0].count("<wbr>") == 1


def test_a_picture_says_its_size(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 700, 320))
    image = '<img alt="a" src="../_images/a.png" style="width: 700px;" />'
    found, _ = site.mended(image, {"a.png": site.size(path)})
    assert '_images/a.png" width="700" height="320" style="--width: 700px"' in found


@pytest.mark.parametrize(
    "before, after",
    [
        ('<div class="citation" role="doc-biblioentry">', '<div class="citation">'),
        ('<summary aria-label="Toggle hidden content">', "<summary>"),
        ('<span class="n">x</span><span class="o">=</span>', 'x<span class="o">=</span>'),
        ('<th class="head"><p></p></th>', '<td class="head"></td>'),
        ('<th class="head"><p>a</p></th>', '<th class="head"><p>a</p></th>'),
    ],
)
def test_names_and_roles(before, after):
    assert site.mended(before, {})[0] == after


def test_code_that_is_not_marked_has_the_colour_that_its_mark_would_give(html):
    sheet = (html / "_static" / "pygments.css").read_text(encoding="utf-8")
    for theme in ("light", "dark"):
        rule = rf'html\[data-theme="{theme}"\] \.highlight {{0}}{{{{[^}}}}]*[{{{{ ;]color: (#\w+)'
        (plain,) = re.findall(rule.format(""), sheet)
        for kind in "npw":
            assert re.findall(rule.format(rf"\.{kind} "), sheet) == [plain]
