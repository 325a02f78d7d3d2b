"""Puts into the wheel what a chapter alone reads of the book: the claims and the stored tables."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BOOK = Path(__file__).resolve().parents[1] / "book"


class WithBook(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            to = Path(self.build_lib) / "ifbook" / "book"
            shutil.copytree(BOOK / "tables", to / "tables", dirs_exist_ok=True)
            shutil.copy(BOOK / "claims.yml", to)


setup(cmdclass={"build_py": WithBook})
