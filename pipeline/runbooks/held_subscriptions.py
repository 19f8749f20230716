"""Subscriptions of a recovered server: disabled before it opens, enabled when clients come in."""

from collections.abc import Callable
from typing import Any

import psycopg

from pipeline.postgres.replication import subscriptions
from pipeline.postgres.replication.subscriptions import Subscription
from pipeline.repository.journal import Journal

NOTED = "subscriptions"
"""Result in a journal, written before anything is disabled: afterwards nobody could tell which."""


def hold(
    journal: Journal, connection: psycopg.Connection[Any], progress: Callable[[str], None]
) -> dict[str, Any]:
    """Disable every subscription, and name those that were enabled. Can be repeated."""
    held = sorted({*_noted(journal), *subscriptions.enabled(connection)})
    journal.write("replay", NOTED, enabled=held)
    subscriptions.disable(connection, held)
    for one in held:
        progress(f"  subscription {one} is disabled until clients are let in")
    return {NOTED: held}


def release(
    journal: Journal, connection: psycopg.Connection[Any], progress: Callable[[str], None]
) -> dict[str, Any]:
    """Enable those that `hold` disabled; one that is gone meanwhile is named."""
    held = _noted(journal)
    gone = subscriptions.enable(connection, held)
    for one in held:
        told = "is not there any more" if one in gone else "is enabled again"
        progress(f"  subscription {one} {told}")
    return {NOTED: held}


def _noted(journal: Journal) -> list[Subscription]:
    noted = journal.last(NOTED)
    return [Subscription(*one) for one in noted["enabled"]] if noted else []
