"""Imports that would cost every start more than they bring."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def import_torchmetrics() -> None:
    """Import torchmetrics without the packages that it looks for and has no use for here.

    Where matplotlib and scipy are installed it would import both, for plots and sound: half a second and 60 MB.
    """
    from lightning_utilities.core import imports

    asks, finds = imports.RequirementCache.__bool__, imports.package_available
    replaced: Any = imports
    replaced.RequirementCache.__bool__ = lambda self: str(self.requirement).startswith("torch>") and asks(self)
    replaced.package_available = lambda package_name: False
    try:
        import torchmetrics  # noqa: F401
    finally:
        replaced.RequirementCache.__bool__, replaced.package_available = asks, finds


@contextmanager
def importing(module: str, *, for_good: bool) -> Iterator[None]:
    """Import without a search for garbage among the half million objects that stay: a second or two.

    Args:
        module: What is about to be imported; nothing is done where it is there already.
        for_good: Whether all objects may be left out of later searches, too: not those of another program.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        if for_good:
            gc.freeze()
    finally:
        gc.enable()
