"""From matplotlib to inline SVG: text stays text, colours come from the page, and the same figures are the same bytes.

Figures are drawn without pyplot, so no backend is chosen and nothing of the caller's settings is changed or used. A
figure is as wide as a phone's screen in CSS pixels: its text has the size of the page's there, and grows elsewhere.
"""

import html
import io
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_INCHES = 4.6
"""331 points, which are the units of the SVG."""
_COLOURS = ("ink", "muted", "grid", "page", "challenger", "champion", "bad")
_CODES = {name: f"#00000{number}" for number, name in enumerate(_COLOURS, start=1)}
INK, MUTED, GRID, PAGE, CHALLENGER, CHAMPION, BAD = _CODES.values()
"""Colours to draw with; each becomes the CSS variable of its name, which is another one in the dark."""
_one_at_a_time = threading.Lock()
"""matplotlib keeps its settings in a global: two threads would draw in each other's style."""
_STYLE: dict[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "deepfm",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": "medium",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "figure.edgecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "xtick.major.pad": 6.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def draw(name: str, *, label: str, height_inches: float, onto: "Callable[[Figure], None]") -> str:
    """One `<svg>` element that a page can hold beside others.

    Args:
        name: Makes the ids of this figure its own.
        label: What it shows, for those who do not see it.
        height_inches: At a width of 4.6 inches.
        onto: Draws on the empty figure.
    """
    with _one_at_a_time, _settings_folder():
        import matplotlib.style
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        with matplotlib.style.context(["default", _STYLE]):
            figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
            onto(figure)
            stream = io.StringIO()
            # Not savefig, which draws everything once more before.
            FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    return _inline(stream.getvalue(), name=name, label=label)


def _inline(svg: str, *, name: str, label: str) -> str:
    """The SVG without what a page has already (namespaces, global styles) and without sizes, fonts and colours."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href").replace('id="', f'id="{name}-')
    body = body.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    # matplotlib 3.10 writes one property, later releases one for each part.
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"font-family: [^;\"]*; ?", "", body)
    for colour, code in _CODES.items():
        body = body.replace(code, f"var(--{colour})")
    view = re.search(r'viewBox="[^"]*"', body)
    opening = f'<svg class="plot" role="img" aria-label="{html.escape(label)}" {view[0] if view else ""}>'
    return re.sub(r"<svg[^>]*>", lambda _: opening, body, count=1).strip()


@contextmanager
def _settings_folder() -> Iterator[None]:
    """A private folder for matplotlib's font list where the user has no home to keep it in; it would warn."""
    if "MPLCONFIGDIR" in os.environ or _home_is_writable():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="deepfm-") as folder:
        os.environ["MPLCONFIGDIR"] = folder
        try:
            yield
        finally:
            del os.environ["MPLCONFIGDIR"]


def _home_is_writable() -> bool:
    home = Path(os.environ.get("HOME") or "/nonexistent")
    kept_in = (home / ".cache", home / ".config")
    return home.is_dir() and all(os.access(folder if folder.exists() else home, os.W_OK) for folder in kept_in)
