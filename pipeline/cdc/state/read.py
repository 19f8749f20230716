"""Read the state of CDC: slots, then offsets, then where the server's WAL ends, then topics."""

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import psycopg

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.state import source
from pipeline.cdc.state.brokers import Topics
from pipeline.cdc.state.parts import OF_SERVER, Part
from pipeline.cdc.state.reading import Asked, Reading, Server, Unread
from pipeline.cdc.state.workers import Workers
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.postgres.server.session import connect

GLANCE = timedelta(seconds=5)
"""A rebalance is waited out; a worker that is away is told soon."""
LIMIT = {"statement_timeout": "10s", "lock_timeout": "2s"}


def read(config: PipelineConfig) -> Reading:
    """Read all of it; whatever does not answer is named in `unread`, and stops nothing else."""
    taken = datetime.now(UTC)
    with ExitStack() as stack:
        server = _Source(config, stack)
        slots = server.ask(Part.SLOTS, source.slots) or ()
        workers = Workers(config, stack.enter_context(ConnectClient(config.connect, GLANCE)))
        workers.read()
        found = {"slots": slots, "server": server.ask(Part.SERVER, source.server)}
        found["prepared"] = server.ask(Part.PREPARED, source.prepared) or ()
        found["subscriptions"] = server.ask(Part.SUBSCRIPTIONS, source.subscriptions) or ()
        unread = [*server.unread, *workers.unread]
        if server.connection is not None:
            known = {slot.database for slot in slots if slot.database}
            known |= {each.database for each in workers.connectors} & _databases(found["server"])
            databases = source.Databases(config.postgres, known)
            databases.read(workers.connectors)
            found["publications"] = databases.publications
            found["tables"] = databases.tables
            found["service_tables"] = databases.service_tables
            unread += databases.unread
    topics = Topics(config.kafka)
    topics.look()
    found["topics"] = topics.written(chain(*(each.topics for each in workers.connectors)))
    found["internal_topics"] = topics.internal(config.connect.internal_topics)
    return Reading(
        taken=taken,
        asked=Asked(
            slot=config.cdc.slot,
            connectors=config.connect.connectors,
            receiver_slot=config.repository.receiver_slot,
            internal_topics=config.connect.internal_topics,
        ),
        worker=workers.worker,
        connectors=workers.connectors,
        others=workers.others,
        unread=(*unread, *topics.unread),
        **found,
    )


def _databases(server: Server | None) -> set[str]:
    return set(server.databases) if server else set()


class _Source:
    """The server, if it lets us in; each question is one that may fail by itself."""

    def __init__(self, config: PipelineConfig, stack: ExitStack) -> None:
        self.unread: list[Unread] = []
        self.connection: psycopg.Connection[Any] | None = None
        try:
            made = connect(config.postgres, autocommit=True, settings=LIMIT)
            self.connection = stack.enter_context(made)
        except (psycopg.Error, ConfigError) as error:
            why = f"PostgreSQL does not answer: {' '.join(str(error).split())}"
            self.unread += [Unread(part=part, why=why) for part in OF_SERVER]

    def ask(self, part: Part, question: Any) -> Any:  # noqa: ANN401 - one of `source`
        """Ask, or note why there is no answer."""
        if self.connection is None:
            return None
        try:
            return question(self.connection)
        except psycopg.Error as error:
            told = " ".join(str(error).split())
            refused = isinstance(error, psycopg.errors.InsufficientPrivilege)
            grant = f'GRANT pg_monitor TO "{self.connection.info.user}"' if refused else None
            self.unread.append(Unread(part=part, why=told, grant=grant))
            return None
