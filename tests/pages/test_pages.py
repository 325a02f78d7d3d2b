"""The pages: built without a warning, whole in their links, and with nothing from outside."""

import json
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from bs4 import BeautifulSoup
from sphinxcontrib import katex

from ifbook import citing, figures, ledger

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(html):
    found = {
        p: BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser")
        for p in html.glob("book/*.html")
    }
    assert len(found) >= 6
    return found


def links(soup):
    for tag, attribute in (
        ("a", "href"),
        ("link", "href"),
        ("img", "src"),
        ("script", "src"),
        ("source", "src"),
    ):
        for element in soup.find_all(tag):
            if element.get(attribute):
                yield element, element[attribute]


def test_every_internal_link_leads_somewhere(pages):
    ids = {page: {e["id"] for e in soup.find_all(id=True)} for page, soup in pages.items()}
    for page, soup in pages.items():
        for _, link in links(soup):
            parts = urlparse(link)
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.exists(), f"{page.name}: {link}"
            if parts.fragment and target in ids:
                assert parts.fragment in ids[target], f"{page.name}: {link}"


def test_no_page_loads_anything_from_outside(html, pages):
    for page, soup in pages.items():
        for element, link in links(soup):
            if element.name != "a":
                assert not re.match(r"(https?:)?//", link), f"{page.name}: {link}"
    for sheet in html.glob("_static/**/*.css"):
        outside = re.findall(
            r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^)'\"]*", sheet.read_text(encoding="utf-8")
        )
        assert not outside, f"{sheet.name}: {outside}"


def test_the_formulas_are_typeset_in_the_pages(html, pages):
    """Each with MathML and its TeX; no script typesets, and the style is that of the typesetter."""
    for page, soup in pages.items():
        for formula in soup.find_all(class_="math"):
            assert formula.find(class_="katex-html") and formula.find("math"), page.name
            assert formula.find("annotation", encoding="application/x-tex").text.strip(), page.name
        assert not soup.find(class_="katex-error"), page.name
        assert not [s for s in soup.find_all("script", src=True) if "mathjax" in s["src"]]
    style = (html / "_static" / "katex" / "katex.min.css").read_text(encoding="utf-8")
    assert f'content:"{katex.katex_version}"' in style
    fonts = set(re.findall(r"fonts/[\w-]+\.woff2", style))
    assert fonts and all((html / "_static" / "katex" / font).exists() for font in fonts)


def test_a_page_has_no_theme_until_the_browser_gives_it_one(pages):
    """Any other mark than light or dark would leave a page without scripts without colours."""
    for page, soup in pages.items():
        assert not soup.html.get("data-theme"), page.name


def test_every_figure_has_alt_text_and_a_caption(pages):
    shown = [(page, figure) for page, soup in pages.items() for figure in soup.find_all("figure")]
    assert shown
    for page, figure in shown:
        assert len(figure.find("img").get("alt", "")) > 40, page.name
        assert len(figure.find("figcaption").get_text(strip=True)) > 40, page.name
    for page, soup in pages.items():
        for image in soup.find("article").find_all("img"):
            assert image.get("alt"), f"{page.name}: {image.get('src')}"


def test_every_figure_has_links_to_its_files(pages):
    folder = ROOT / "book" / "figures"
    drawn = {path.stem for path in folder.glob("*.svg")}
    found = [
        [Path(urlparse(a["href"]).path).name for a in line.find_all("a")]
        for soup in pages.values()
        for line in soup.find_all(class_="figure-files")
    ]
    expected = [[path.name for path in figures.files(folder, name)] for name in drawn]
    assert sorted(found) == sorted(expected)


def test_labels_stay(pages):
    """What may have been cited is where it was: labels of pages, claims, equations, figures."""
    found = {page.stem: {e["id"] for e in soup.find_all(id=True)} for page, soup in pages.items()}
    for line in (Path(__file__).parent / "labels.txt").read_text(encoding="utf-8").splitlines()[1:]:
        page, label = line.split()
        assert label in found[page], line


def test_each_line_of_the_ledger_opens_and_leads_to_the_cell_that_decides(pages):
    soup = next(s for p, s in pages.items() if p.stem == "ledger")
    assert any("ledger.js" in s["src"] for s in soup.find_all("script", src=True))
    for claim, row in ledger.claims().items():
        line = soup.find("details", id=f"row-{claim.lower()}")
        assert line.find(class_="claim").get_text() == claim
        decided = [a["href"] for a in line.find_all("a") if "#claim-" in a.get("href", "")]
        assert decided == [f"{row['chapter']}.html#claim-{claim.lower()}"]
        assert line.find(class_="verdict").get_text() in ledger.VERDICTS.values()


def test_every_statement_is_listed_with_the_number_and_the_title_that_it_has(pages):
    by_name = {page.name: soup for page, soup in pages.items()}
    listed = by_name["statements.html"].find(class_="statements")
    shown = {a["href"]: a for a in listed.find_all("a") if "#" in a["href"]}
    there = [
        (f"{name}#{box['id']}", box.find(class_="admonition-title"))
        for name, soup in by_name.items()
        for box in soup.select("div.proof[id]")
        if box.find(class_="caption-number")
    ]
    assert len(there) > 100 and {link for link, _ in there} == set(shown)
    for link, title in there:
        number = title.find(class_="caption-number").extract().get_text(strip=True)
        assert shown[link].get_text() == number
        line = shown[link].find_parent("p").get_text()
        assert line == f"{number}: {title.get_text().strip()[1:-1]}", link


def test_each_page_says_the_version_and_the_licences_at_its_foot(pages):
    for page, soup in pages.items():
        foot = soup.find("footer", class_="bd-footer-content").get_text()
        assert f"Version {citing.edition().version}." in foot, page.name
        assert "CC BY 4.0" in foot and "MIT" in foot, page.name


def test_the_entries_to_cite_are_on_their_page_and_can_be_copied(pages):
    soup = next(s for p, s in pages.items() if p.stem == "reproducing")
    assert any("copybutton" in s["src"] for s in soup.find_all("script", src=True))
    blocks = [block.get_text().strip() for block in soup.select("div.cite-as.highlight-bibtex pre")]
    assert blocks[0] == citing.bibtex(citing.edition())
    assert "{{The error decomposition}}" in blocks[1] and "{{Claim C3b}}" in blocks[2]


def test_a_link_to_a_term_says_what_it_means(pages):
    glossary = next(s for p, s in pages.items() if p.stem == "glossary")
    for term in glossary.select("dl.glossary dt"):
        first = term.find_next_sibling("dd").get_text()
        assert len(first) > 40, term.get_text()
    linked = [
        (page.name, a)
        for page, soup in pages.items()
        for a in soup.select('article a[href^="glossary.html#term-"]')
    ]
    assert linked
    for name, link in linked:
        assert len(link["title"]) > 20, f"{name}: {link}"


def test_a_search_for_a_number_of_the_notes_leads_to_the_statement(html):
    """By the index that the page of the search reads."""
    text = (html / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    for asked, page, label in (
        ("lemma 0.0.2", "book/step-schedules", "lemma-0-0-2"),
        ("definition 3", "book/leverage", "definition-3"),
        ("how do i cite", "book/reproducing", "index-0"),
    ):
        ((document, place, main),) = index["indexentries"][asked]
        assert (index["docnames"][document], place, main) == (page, label, True)


def test_no_id_occurs_twice_and_every_fold_is_named_by_its_line(pages):
    for page, soup in pages.items():
        ids = [e["id"] for e in soup.find_all(id=True)]
        assert len(ids) == len(set(ids)), page.name
        for line in soup.find_all("summary"):
            assert not line.get("aria-label") and line.get_text(strip=True), page.name


def test_pages_are_small(html):
    """In bytes: a page, the ledger, and the site."""
    for page in html.glob("book/*.html"):
        assert page.stat().st_size < (4e6 if page.stem == "ledger" else 2e6), page.name
    assert sum(path.stat().st_size for path in html.rglob("*") if path.is_file()) < 45e6
