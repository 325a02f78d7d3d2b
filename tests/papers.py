"""The numbers that a reader sees: on built pages, and in what TeX made of the same book."""

import re

from bs4 import BeautifulSoup


def on_pages(html):
    """{"equations": {label: number}, "figures", "statements": a set, "headings": a set}."""
    found = {"equations": {}, "figures": {}, "statements": set(), "headings": set()}
    for path in sorted(html.glob("book/*.html")):
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").article
        for formula in soup.select("div.math[id^=equation-]"):
            number = formula.select_one("span.eqno").contents[0].strip().strip("()")
            found["equations"][path.stem, formula["id"].removeprefix("equation-")] = number
        for figure in soup.select("figure[id]"):
            if caption := figure.select_one("span.caption-number"):
                found["figures"][path.stem, figure["id"]] = caption.text.split()[1]
        for box in soup.select("div.proof"):
            if number := box.select_one("p.admonition-title > span.caption-number"):
                if re.search(r"\d", number.text):
                    found["statements"].add(number.text.strip())
        for number in soup.select("h1 > span.section-number, h2 > span.section-number"):
            found["headings"].add(number.text.strip().rstrip("."))
    return found


def on_paper(latex):
    """The same of TeX's auxiliary files, beside book.tex."""
    aux = (latex / "book.aux").read_text(encoding="utf-8")
    tex = (latex / "book.tex").read_text(encoding="utf-8")
    toc = (latex / "book.toc").read_text(encoding="utf-8")
    label = r"^\\newlabel\{%sbook/([\w-]+):([^}]*)\}\{\{([^}]*)\}.*\{%s\."

    def tied(prefix, kind):
        found = re.findall(label % (prefix, kind), aux, re.M)
        return {(page, name): number for page, name, number in found}

    return {
        "equations": tied("equation:", "equation"),
        "figures": tied("", "figure"),
        "statements": set(
            re.findall(r"\{sphinxadmonition\}\{note\}\{(?!Exercise)([A-Z][a-z]+ \d+)", tex)
        ),
        "headings": set(re.findall(r"\{(?:chapter|section)\}\{\\numberline \{([\d.]+)\}", toc)),
    }
