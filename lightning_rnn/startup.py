"""Imports that would cost every start more than they bring."""

from typing import Any

from lightning_utilities.core.imports import RequirementCache


def import_torchmetrics() -> None:
    """Import torchmetrics without matplotlib, which it would import for plots of its own that nobody asks for here."""
    asks = RequirementCache.__bool__

    def asks_but_for_matplotlib(self: Any) -> bool:
        return self.requirement != "matplotlib" and asks(self)

    RequirementCache.__bool__ = asks_but_for_matplotlib  # type: ignore[method-assign]
    try:
        import torchmetrics  # noqa: F401
    finally:
        RequirementCache.__bool__ = asks  # type: ignore[method-assign]
