"""What is mended in the pages as the theme and the writers leave them.

A Sphinx extension: names and roles for who does not see the page, the size of each picture before
it is there, and no byte that no reader needs.
"""

import re
import struct
from pathlib import Path

# What an element is said to be, wrongly or by an old name; and MyST-NB's name of a fold, which
# would hide the line that the fold shows.
SAID = [
    (' role="doc-biblioentry"', ""),
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
]
EMPTY = re.compile(r"<th([^>]*)>(?:<p>)?\s*(?:</p>)?</th>")
IMAGE = re.compile(
    r'(<img [^>]*src="[^"]*_images/([^"/]+\.(?:png|svg))")(?: style="width: (\d+px);")?'
)
# What KaTeX says of a box's place and size, the same few hundred phrases again and again; as
# classes q0, q1, …, since no token of code begins with q.
STYLED = re.compile(r'(<span class="[^"]*)" style="([^"]*)"')
# Names, punctuation and spaces of code, which have the colour that they have without a mark.
PLAIN = re.compile(r'<span class="[npw]">([^<]*)</span>')
# The theme's own script gives the page its colours, but only after it has waited for its sheets.
THEME = """(({ dataset }) => {
  dataset.mode ||= "auto";
  dataset.theme ||= matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
})(document.documentElement);"""
BASES = '</span><span class="base">'  # two parts of a formula, between which a line may end
XMLNS = ' xmlns="http://www.w3.org/1998/Math/MathML"'  # which HTML knows
# Files for who changes the theme, for browsers of ten years ago, for the theme's translators.
NEEDLESS = ("*.js.map", "*.css.map", "vendor/**/*.ttf", "locales/**/*.*")


def mended(body, sizes):
    """The HTML of a page's body, and the style sheet of the formulas in it.

    sizes : of the pictures by file name, (width, height) in pixels.
    """
    for old, new in SAID:
        body = body.replace(old, new)
    body = body.replace(BASES, BASES.replace("><", "><wbr><"))
    body = PLAIN.sub(r"\1", body.replace(XMLNS, ""))
    body = EMPTY.sub(r"<td\1></td>", body)
    body = IMAGE.sub(lambda m: m[1] + _sized(sizes.get(m[2]), m[3]), body)
    names = {}

    def named(match):
        return f'{match[1]} q{names.setdefault(match[2], len(names)):x}"'

    body = STYLED.sub(named, body)
    return body, "".join(f".q{number:x}{{{style}}}" for style, number in names.items())


def _sized(size, width):
    """A picture's size, from which its shape is known, and the width that the page gives it."""
    shape = f' width="{size[0]}" height="{size[1]}"' if size else ""
    return shape + (f' style="--width: {width}"' if width else "")


def size(path):
    """Width and height in pixels of a PNG file, from its header."""
    return struct.unpack(">II", Path(path).read_bytes()[16:24])


def _page(app, page, template, context, doctree):
    if "body" in context:
        sizes = {
            name: size(Path(app.srcdir) / path)
            for path, name in app.builder.images.items()
            if name.endswith(".png")
        }
        context["body"], style = mended(context["body"], sizes)
        context["metatags"] = context.get("metatags", "") + f"<style>{style}</style>"
    said = set()
    for script in list(context.get("script_files", [])):
        text = getattr(script, "attributes", {}).get("body")
        if text in said:  # a second declaration of a constant is an error
            context["script_files"].remove(script)
        said |= {text} - {None}


def _end(app, exception):
    if app.builder.format == "html" and not exception:
        for kind in NEEDLESS:
            for path in (Path(app.outdir) / "_static").glob(f"**/{kind}"):
                path.unlink()


def setup(app):
    app.add_js_file(None, body=THEME, priority=100)
    app.connect("html-page-context", _page, priority=900)
    app.connect("build-finished", _end, priority=900)
    return {"parallel_read_safe": True}
