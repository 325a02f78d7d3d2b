"""One style for the book's figures, and one way to show them.

They are shown on the page, and as files to take away.
"""

import csv
import hashlib
import io
import json
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from IPython.display import HTML, Image, display

# After Okabe and Ito (2008), darkened where that gives a contrast of 3 on white; distinct for the
# colour-blind.
COLOURS = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#007A5E",
    "purple": "#A8558A",
    "amber": "#B87A00",
    "grey": "#6B6B6B",
}
DPI = 160
FOLDER = "figures"
# What an output's metadata call the digest of the files that were written with it.
DIGEST = "figure-files"
# The drawings of a figure, as the pages call them; its numbers are .csv files beside them.
KINDS = {"SVG": "svg", "PDF": "pdf"}


def style():
    """Sets matplotlib to the book's style: a white card on either theme, 7 inches wide."""
    matplotlib.rcParams.update(matplotlib.rcParamsDefault)
    matplotlib.rcParams.update(
        {
            "axes.grid": True,
            "axes.prop_cycle": plt.cycler(color=list(COLOURS.values())),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.figsize": (7, 3.2),
            "font.size": 9.5,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "pdf.compression": 9,
            "svg.hashsalt": "ifcore",
        }
    )


def show(fig, name, **numbers):
    """Displays `fig` as PNG and writes figures/name.svg, .pdf and, of the plotted numbers, .csv.

    numbers : the plotted columns by name, sequences of one length, for name.csv. What has other
    rows is a table of its own, columns by name in a dict, and goes to name.table.csv. The files go
    to the folder `figures` of the working folder, and are the same bytes from run to run; on the
    pages a line of links to them stands below the figure. The output's metadata have their digest.
    Raises ValueError where no numbers come, the columns of a table are of unequal length, or its
    name cannot be a file's.
    """
    if not numbers:
        raise ValueError(f"show needs the numbers plotted in {name}, as columns by name; got none")
    own = {key: table for key, table in numbers.items() if isinstance(table, dict)}
    columns = {key: column for key, column in numbers.items() if key not in own}
    tables = {name: columns} if columns else {}
    tables |= {f"{name}.{key}": table for key, table in own.items()}
    tables = {title: _table(title, table) for title, table in tables.items()}
    if odd := [key for key in own if not re.fullmatch(r"[\w.-]+", key)]:
        raise ValueError(f"tables must have names that can be a file's; got {odd[0]!r} in {name}")
    folder = Path(FOLDER)
    folder.mkdir(exist_ok=True)
    for old in files(folder, name):
        old.unlink()
    fig.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    undated = {"CreationDate": None, "Creator": None, "Producer": None}
    fig.savefig(folder / f"{name}.pdf", metadata=undated)
    for title, table in tables.items():
        _write(folder / f"{title}.csv", table)
    drawn = io.BytesIO()
    fig.savefig(drawn, dpi=DPI, metadata={"Software": None})
    plt.close(fig)
    shown = Image(_smaller(drawn), width=round(fig.get_figwidth() * 100))
    display(shown, metadata={DIGEST: digest(folder, name)})


def _smaller(png):
    """A picture as PNG, in its 256 most frequent colours: a third of the bytes."""
    small = io.BytesIO()
    PIL.Image.open(png).convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE).save(
        small, "PNG", optimize=True
    )
    return small.getvalue()


def touch(name, **numbers):
    """Displays, below a figure that stands still, one to touch: assets/touch/name.js draws it.

    In a cell of its own: what a cell shows beside a figure would be given its caption, too.
    numbers : what it is drawn from, anything that JSON has, floats with six digits; a `caption`
    among them, plain text, stands below. Without scripts, and in print, there is nothing. Raises
    ValueError for numbers that are not finite.
    """
    text = json.dumps(_rounded(numbers), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    text = text.replace("<", r"\u003c")
    script = f'<script type="application/json">{text}</script>'
    display(HTML(f'<div class="touch" data-figure="{name}">{script}</div>'))


def _rounded(value):
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def files(folder, name):
    """The files of the figure `name` that are in a folder: drawings, then numbers."""
    found = [folder / f"{name}.{kind}" for kind in (*KINDS.values(), "csv")]
    return [path for path in (*found, *sorted(folder.glob(f"{name}.*.csv"))) if path.exists()]


def digest(folder, name):
    """The SHA-256 of the names and bytes of the files of the figure `name` in a folder, as hex."""
    found = hashlib.sha256()
    for path in files(folder, name):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def _table(title, columns):
    """Columns as lists, of one length and one axis each."""
    columns = {key: list(values) for key, values in columns.items()}
    if not columns or any(np.ndim(value) for column in columns.values() for value in column):
        raise ValueError(f"the numbers plotted in {title} must be columns, of one axis each")
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(
            f"the columns of {title} must be of one length; got {lengths}. What has other rows is "
            "a table of its own, a dict"
        )
    return columns


def _write(path, columns):
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(zip(*(map(_text, column) for column in columns.values())))


def _text(value):
    return f"{value:.6g}" if isinstance(value, float) else str(value)
