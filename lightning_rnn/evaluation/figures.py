"""What all figures share: size, axes, names and files.

matplotlib (`pip install 'lightning_rnn[figures]'`) is imported when the first figure is drawn, and
without pyplot, so that no window is opened and no figure has to be closed.
"""

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rnn.atomic_files import atomic_write

WIDTH = 4.8  # inches; TensorBoard shows images at about 3 inches, where text must be legible
DPI = 150
MAX_NAME_LENGTH = 14
LAST_RESORT = ("Last Resort", ".Last")  # fonts of boxes for all characters


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure; sizes in inches of 150 pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def new_axes(
    title: str, xlabel: str, ylabel: str, *, width: float = WIDTH, height: float = 0.75 * WIDTH
) -> tuple[Any, Any]:
    """Return a figure with a single plot, and the plot's axes."""
    figure = new_figure(width, height)
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left")
    remove_frame(axes)
    return figure, axes


def remove_frame(axes: Any) -> None:
    """Draw a grid in place of the upper and right edge."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def short_names(names: Sequence[str], *, escape: bool = True) -> list[str]:
    """Return names of at most 14 characters, with a number in front if they were the same.

    With `escape`, a $ is escaped, as matplotlib takes text between two of them for a formula.

    Example:
        >>> short_names(["up", "temperature at 20 m", "temperature at 50 m"])
        ['up', 'tempera…t 20 m', 'tempera…t 50 m']
    """
    shortened = []
    for name in names:
        text = " ".join(name.split())
        if len(text) > MAX_NAME_LENGTH:
            text = f"{text[:7]}…{text[-6:]}"
        shortened.append(text.replace("$", r"\$") if escape else text)
    if len(set(shortened)) == len(names):
        return shortened
    return [f"{i} {text}" for i, text in enumerate(shortened)]


def add_legend(axes: Any, location: str) -> None:
    """Add a legend if there is something to explain."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc=location, fontsize="small")


def save_png(image: np.ndarray, path: Path) -> None:
    """Write an image (height, width, 3) of uint8 to a PNG file."""
    from matplotlib.image import imsave

    with atomic_write(path) as temporary:
        imsave(temporary, image, format="png")


def pixels(figure: Any) -> np.ndarray:
    """Return a figure as an array (height, width, 3) of uint8.

    Text that the default font lacks, such as Chinese, is drawn in an installed font that has it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.text import Text

    canvas: Any = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # without such a font, there are boxes in the figure
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")  # before 3.11
        canvas.draw()
        texts = figure.findobj(Text)
        characters = "".join("".join(text.get_text().split()) for text in texts)
        known = get_font(findfont(FontProperties())).get_charmap()
        families = fonts_with(frozenset(map(ord, characters)).difference(known))
        if families:
            for text in texts:
                text.set_fontfamily(["sans-serif", *families])
            canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


@cache
def fonts_with(codes: frozenset[int]) -> list[str]:
    """Return the families of installed fonts that together have all characters that one has."""
    from matplotlib.font_manager import fontManager, get_font

    families = []
    for entry in fontManager.ttflist if codes else ():
        known = get_font(entry.fname).get_charmap().keys()
        if codes & known and not entry.name.startswith(LAST_RESORT):
            families.append(entry.name)
            codes -= known
    return families
