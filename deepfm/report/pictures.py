"""A plot of the report as a picture that can stand alone, such as in an orchestrator's pages."""

import base64
import re

_COLOURS = {
    "ink": "#1d2530",
    "muted": "#66717f",
    "grid": "#e3e7ec",
    "page": "#ffffff",
    "challenger": "#1f63c6",
    "champion": "#b5570a",
    "bad": "#b3261e",
}
"""Those of the page by day: a picture does not know what is around it, so it brings its own white ground."""


def data_uri(svg: str) -> str:
    """The plot as a `data:` address of an SVG file, on white.

    Args:
        svg: A plot of `deepfm.report.plots`.
    """
    standalone = re.sub(r"var\(--(\w+)\)", lambda match: _COLOURS[match[1]], svg)
    opening = '<svg xmlns="http://www.w3.org/2000/svg" width="460" style="background:#ffffff" font-family="sans-serif"'
    return "data:image/svg+xml;base64," + base64.b64encode(standalone.replace("<svg", opening, 1).encode()).decode()
