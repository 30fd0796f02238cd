"""Imports that would cost every start more than they bring."""

from typing import Any

from lightning_utilities.core import imports


def import_torchmetrics() -> None:
    """Import torchmetrics without the packages that it looks for and has no use for here.

    Where matplotlib and scipy are installed it would import both, for plots and sound: half a second and 60 MB.
    """
    asks, finds = imports.RequirementCache.__bool__, imports.package_available
    replaced: Any = imports
    replaced.RequirementCache.__bool__ = lambda self: str(self.requirement).startswith("torch>") and asks(self)
    replaced.package_available = lambda package_name: False
    try:
        import torchmetrics  # noqa: F401
    finally:
        replaced.RequirementCache.__bool__, replaced.package_available = asks, finds
