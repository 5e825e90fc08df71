"""Line charts and histograms as SVG that is part of the page.

Matplotlib draws; every colour is then turned into a CSS variable of the page, so that one chart serves the light and
the dark theme. Names stand in a legend in HTML: no text of the user enters a chart, where Matplotlib would read "$" as
mathematics.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Numbers = Sequence[float] | npt.NDArray[np.float64]

SERIES = 6
"""Colours of lines; the page's style sheet defines each for both themes."""

# Colours that Matplotlib writes, and the CSS variables that take their place.
_INK, _GRID, _FAINT = "#000001", "#000002", "#000003"
_SERIES = tuple(f"#00001{number}" for number in range(SERIES))
_VARIABLES = {_INK: "var(--muted)", _GRID: "var(--line)", _FAINT: "var(--faint)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES)
}
_WIDTH = 2.0  # of a line; Matplotlib multiplies its dashes by it
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2), (3, 1), (8, 3))

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "ytick.major.size": 0,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: what the legend calls it; empty for a line that stays in the background and out of the legend.
        x, y: (n,) numbers of equal length; a y that is not finite interrupts the line.
    """

    name: str
    x: Numbers
    y: Numbers


@dataclass(frozen=True)
class Key:
    """A line of the legend: its name, its colour in CSS, and its dashes as SVG's `stroke-dasharray` ("" is solid)."""

    name: str
    colour: str
    dashes: str


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        title: heading.
        svg: an `<svg>` element without namespaces or addresses.
        legend: what each line is; empty where there is only one.
    """

    title: str
    svg: Markup
    legend: tuple[Key, ...] = ()


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    y_from_zero: bool = False,
    whole_x: bool = False,
) -> Chart:
    """Draw lines over a common axis. Lines with a name differ in colour and in dashes.

    Args:
        title: Heading; also what a screen reader says.
        lines: At most `SERIES` of them have a name.
        x_label: What x is, with its unit.
        y_label: What y is, with its unit.
        x_range: Limits of x; by default those of the lines.
        y_range: Limits of y; by default those of the lines.
        y_from_zero: Whether y begins at 0, where `y_range` does not say it.
        whole_x: Whether x counts something, so that ticks are whole numbers.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _new_axes(x_label, y_label)
        for line in lines:
            if not line.name:
                axes.plot(line.x, line.y, color=_FAINT, linewidth=1)
        named = [line for line in lines if line.name]
        for line, colour, dashes in zip(named, _SERIES, _DASHES, strict=False):
            style = (0, dashes) if dashes else "solid"
            marker = "o" if len(line.x) == 1 else None  # a line of one point cannot be seen
            axes.plot(line.x, line.y, color=colour, linestyle=style, linewidth=_WIDTH, marker=marker, markersize=4)
        if whole_x:
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.margins(x=0.02, y=0.08)
        axes.set_ylim(bottom=0 if y_from_zero else None)
        axes.set_xlim(x_range)
        axes.set_ylim(y_range)
        keys = [_key(line.name, series) for series, line in enumerate(named)] if len(lines) > 1 else []
        return Chart(title, _to_svg(figure, title), tuple(keys))


def histogram(
    title: str,
    values: Numbers,
    *,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    cut: tuple[str, float] | None = None,
) -> Chart:
    """Draw how often values occur.

    Args:
        title: Heading; also what a screen reader says.
        values: At least one finite number.
        x_label: What the values are, with their unit.
        y_label: What is counted.
        x_range: Limits of the bins; by default those of the values.
        cut: What a vertical line means, for the legend, and where it is.
    """
    values = np.asarray(values, np.float64)
    bins = 20 if x_range else min(30, max(5, math.ceil(math.sqrt(len(values)))))
    counts, edges = np.histogram(values, bins=bins, range=x_range)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _new_axes(x_label, y_label)
        axes.bar(edges[:-1], counts, np.diff(edges) * 0.94, align="edge", color=_SERIES[0])
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        if cut is None:
            return Chart(title, _to_svg(figure, title))
        name, place = cut
        axes.axvline(place, color=_SERIES[1], linewidth=_WIDTH, linestyle=(0, _DASHES[1]))
        return Chart(title, _to_svg(figure, title), (_key(name, 1),))


def _key(name: str, series: int) -> Key:
    return Key(name, _VARIABLES[_SERIES[series]], " ".join(f"{part * _WIDTH:g}" for part in _DASHES[series]))


def _new_axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 2.9))
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_axisbelow(True)
    return figure, axes


def _to_svg(figure: Figure, title: str) -> Markup:
    buffer = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        _adapt(element)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": title}
    return Markup(ElementTree.tostring(root, encoding="unicode", method="html"))


def _adapt(element: ElementTree.Element) -> None:
    """Make an element of Matplotlib's file fit for the page: its font and colours, no namespaces, no repeated ids."""
    element.tag = element.tag.rpartition("}")[2]
    for child in list(element):
        if child.tag.endswith("}style"):  # would hold for the whole page
            element.remove(child)
    attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    if element.tag == "g":
        attributes.pop("id", None)
    if element.tag == "text":
        anchor = [part for part in attributes["style"].split("; ") if part.startswith(("text-anchor", "fill"))]
        attributes["style"] = "; ".join(anchor)
    for name, value in attributes.items():
        for colour, variable in _VARIABLES.items():
            value = value.replace(colour, variable)
        attributes[name] = value
    element.attrib = attributes
    element.text, element.tail = (text.strip() if text else None for text in (element.text, element.tail))
