"""Colours that people with any colour vision tell apart, on light and on dark paper.

The eight of Okabe and Ito (Color Universal Design, 2008), for lines on light paper a little darker and on dark paper a
little lighter where the contrast would be below 3 : 1; yellow, unreadable on white, comes last.
"""

from __future__ import annotations

from bendi.report.charts import GREY

NAMES = ("blue", "orange", "green", "purple", "sky", "vermilion", "yellow", "black")
LIGHT = ("#0072b2", "#c77f00", "#008f68", "#b85a90", "#2f8fc4", "#d55e00", "#9a8c00", "#3d3b37")
DARK = ("#5aaedd", "#e69f00", "#2fbf94", "#d99abd", "#8ccbf0", "#f08a4b", "#f0e442", "#e8e4da")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""A second sign beside the colour."""

# Name of a CSS variable: (light, dark).
SHADES = {
    "ink": ("#26241f", "#ebe8e0"),
    "soft": ("#625e55", "#aeaa9f"),
    "line": ("#e6e1d6", "#35342f"),
    "strong": ("#b9b2a3", "#5a5850"),
    "paper": ("#ffffff", "#21211e"),
    "grey": ("#9b968b", "#7d7a71"),
} | {f"data-{index}": (LIGHT[index], DARK[index]) for index in range(len(LIGHT))}


def shade(colour: int) -> str:
    """The variable of a colour by index; more than there are begin anew."""
    return "grey" if colour == GREY else f"data-{colour % len(LIGHT)}"


def marker(colour: int) -> str:
    return "x" if colour == GREY else MARKERS[colour % len(MARKERS)]


def css_variables() -> str:
    """The body of a rule for `:root`."""
    return "\n".join(f"  --{name}: light-dark({light}, {dark});" for name, (light, dark) in SHADES.items())
