"""What the tests share: the project's folder, and an interrupt at a chosen call."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def root():
    return ROOT


@pytest.fixture
def interrupted(monkeypatch):
    """interrupted(room, name, at): room.name is stopped, once, at its call `at`; its calls."""

    def interrupt(room, name, at):
        calls, honest = [], getattr(room, name)

        def counted(*block):
            calls.append(block)
            if len(calls) == at:
                raise KeyboardInterrupt
            return honest(*block)

        monkeypatch.setattr(room, name, counted)
        return calls

    return interrupt


def pytest_collect_file(parent, file_path):
    """Where a chapter was never executed, nbval compares nothing, silently: here it is an error."""
    import nbformat

    if file_path.suffix == ".ipynb" and file_path.parent.name == "stored":
        for cell in nbformat.read(file_path, 4).cells:
            if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
                raise pytest.UsageError(
                    f"{file_path.name}: cell {cell.id} has no stored output; run make refresh"
                )
