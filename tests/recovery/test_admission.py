"""What a server refuses for the moment is asked for again, and told in its own words at last."""

import threading
from datetime import timedelta

import psycopg
import pytest

from fixtures.stacks.protocol import Component
from pipeline.config import PostgresConfig
from pipeline.postgres.server import session
from tests.recovery.history import Source


@pytest.fixture
def crowded(source: Source) -> Source:
    """A server with room for five clients."""
    source.run(
        "alter system set max_connections = 5",
        "alter system set superuser_reserved_connections = 0",
        "alter system set max_wal_senders = 0",
        "alter system set wal_level = replica",
    )
    source.stack.stop(Component.POSTGRES)
    source.stack.start(Component.POSTGRES)
    return source


def test_who_finds_no_place_waits_for_one(crowded: Source) -> None:
    others = [crowded.connect() for _ in range(5)]
    postgres = crowded.config.postgres
    try:
        with pytest.raises(psycopg.OperationalError, match="too many clients already"):
            session.connect_at_once(postgres)
        with pytest.raises(psycopg.OperationalError, match="too many clients already"):
            session.connect(postgres, patience=timedelta(seconds=0.3))
        leaving = threading.Timer(0.5, others[0].close)
        leaving.start()
        session.connect(postgres).close()
        leaving.join()
    finally:
        for other in others:
            other.close()


def test_what_will_not_pass_is_told_at_once(source: Source) -> None:
    wrong = source.config.postgres.model_copy(update={"dbname": "mistyped"})
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        session.connect(wrong, patience=timedelta(minutes=10))


@pytest.mark.parametrize(
    "told",
    [
        "the database system is starting up",
        "the database system is in recovery mode",
        "the database system is not yet accepting connections",
        "sorry, too many clients already",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        'too many connections for role "clerk"',
    ],
)
def test_what_passes_by_itself_is_asked_again(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [psycopg.OperationalError(f"connection failed: FATAL:  {told}"), ValueError(told)]

    def refuse(**_keywords: object) -> None:
        raise answers.pop(0)

    monkeypatch.setattr(psycopg, "connect", refuse)
    with pytest.raises(ValueError, match=told):
        session.connect(PostgresConfig())
