"""`ifbook.figures`: files beside a figure, the same bytes from run to run, colours told apart."""

import itertools

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ifbook import figures


def draw(name="curve"):
    figures.style()
    fig, axis = plt.subplots()
    axis.plot([0, 1, 2], [0, 1, 4], label="$x^2$")
    axis.legend()
    plotted = {"x": [0, 1, 2], "square": np.array([0.0, 1.0, 4.0])}
    figures.show(fig, name, **plotted, ends={"end": [0.123456789], "at": ["left"]})


def test_the_same_bytes_from_run_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw()
    first = {p.name: p.read_bytes() for p in (tmp_path / "figures").iterdir()}
    draw()
    assert sorted(first) == ["curve.csv", "curve.ends.csv", "curve.pdf", "curve.svg"]
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "figures").iterdir()}
    assert first["curve.csv"].decode().splitlines() == ["x,square", "0,0", "1,1", "2,4"]
    assert first["curve.ends.csv"].decode().splitlines() == ["end,at", "0.123457,left"]
    assert not plt.get_fignums()


def test_the_digest_is_of_every_file_of_the_figure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = []
    monkeypatch.setattr(figures, "display", lambda image, metadata: shown.append(metadata))
    draw()
    assert shown == [{figures.DIGEST: figures.digest(tmp_path / "figures", "curve")}]
    found = set()
    for path in figures.files(tmp_path / "figures", "curve"):
        path.write_bytes(path.read_bytes() + b"\n")
        found.add(figures.digest(tmp_path / "figures", "curve"))
    assert len(found) == 4 and shown[0][figures.DIGEST] not in found


def test_a_figure_without_its_numbers_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="needs the numbers plotted in curve"):
        figures.show(plt.figure(), "curve")
    plt.close("all")


@pytest.mark.parametrize(
    "numbers, match",
    [
        ({"x": [1, 2], "y": [1]}, "columns of curve must be of one length; got {'x': 2, 'y': 1}"),
        ({"x": [1], "more": {"y": [1], "z": []}}, r"columns of curve\.more must be of one length"),
        ({"x": [1], "more": {}}, r"plotted in curve\.more must be columns"),
        ({"x": [[1]]}, "plotted in curve must be columns, of one axis each"),
        ({"T = 2": {"x": [1]}}, "names that can be a file's; got 'T = 2' in curve"),
    ],
)
def test_numbers_that_are_no_table_are_refused(tmp_path, monkeypatch, numbers, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=match):
        figures.show(plt.figure(), "curve", **numbers)
    plt.close("all")
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_no_longer_shown_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw()
    figures.show(plt.figure(), "curve", x=[1])
    names = [path.name for path in figures.files(tmp_path / "figures", "curve")]
    assert names == ["curve.svg", "curve.pdf", "curve.csv"]


def luminance(colour):
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def test_every_colour_stands_out_from_the_card():
    for colour in figures.COLOURS.values():
        assert 1.05 / (luminance(colour) + 0.05) >= 3


def test_colours_differ_for_the_colour_blind():
    """Viénot, Brettel and Mollon (1999): what red- and green-blind eyes see, in linear RGB."""
    blind = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }
    for matrix in [*blind.values(), np.eye(3)]:
        seen = {}
        for name, colour in figures.COLOURS.items():
            linear = np.array(matplotlib.colors.to_rgb(colour)) ** 2.2
            seen[name] = np.clip(matrix @ linear, 0, 1) ** (1 / 2.2)
        for one, two in itertools.combinations(
            list(seen)[:2], 2
        ):  # blue and vermilion, used side by side
            assert np.linalg.norm(seen[one] - seen[two]) > 0.3


@pytest.mark.parametrize("column", [3.0, np.ones((2, 2))])
def test_what_is_no_column_is_refused_before_a_file_is_written(tmp_path, monkeypatch, column):
    monkeypatch.chdir(tmp_path)
    fig, _ = plt.subplots()
    with pytest.raises((TypeError, ValueError)):
        figures.show(fig, "fig-x", x=column)
    assert not list(tmp_path.rglob("fig-x*"))
    plt.close(fig)
