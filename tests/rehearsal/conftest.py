"""The short history of the recovery tests, which is only asked here."""

from tests.recovery.conftest import artifacts, history

__all__ = ["artifacts", "history"]
