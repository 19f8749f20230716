"""States of what the source publishes, and of what else on it holds CDC back."""

from collections.abc import Iterator

from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.reading import DatabasePublication
from pipeline.cdc.state.states import REREAD, About, Gravity, Seen, Situation, state
from pipeline.postgres.replication.publications import PublishedTable, narrowed

_PUBLISHED = (Part.SERVER, Part.PUBLICATIONS, Part.CONNECTORS)


def _publication(at: Situation) -> DatabasePublication | None:
    return at.now.publication(at.own.database, at.own.publication)


@state(
    "S27",
    "prepared transaction that nobody ends",
    about=About.SERVER,
    gravity=Gravity.WILL_LOSE,
    risk="restart_lsn and the horizon of VACUUM are held: WAL is kept for every slot",
    command="COMMIT PREPARED or ROLLBACK PREPARED, as its coordinator decided",
    needs=(Part.SERVER, Part.PREPARED),
    earlier=True,
)
def orphan_prepared(at: Situation) -> Seen | None:
    """It was prepared before the earlier set already, or comes from another history."""
    if at.before is None or at.before.server is None:
        return None
    then = {(one.gid, one.since) for one in at.before.prepared}
    other = at.before.server.history != at.server.history
    old = [one for one in at.now.prepared if other or (one.gid, one.since) in then]
    told = ", ".join(f"{one.gid!r} in {one.database} since {one.since}" for one in old)
    return Seen(told) if old else None


@state(
    "S32",
    "publication is missing",
    gravity=Gravity.WILL_LOSE,
    risk="the task fails at the first change, for good where the publication is younger than the "
    "slot: pgoutput looks it up as of the change",
    command=REREAD,
    needs=_PUBLISHED,
)
def publication_missing(at: Situation) -> Seen | None:
    """The database has no such publication, or the task failed because it had none."""
    name = at.own.publication
    if _publication(at) is None:
        return Seen(f"database {at.own.database} has no publication {name!r}")
    causes = [task.cause for task in at.own.tasks if f'"{name}" does not exist' in task.cause]
    return Seen(f"it is younger than a change that waits: {causes[0]}") if causes else None


@state(
    "S33",
    "publication is smaller than it was",
    gravity=Gravity.LOSES,
    risk="changes of it since: they are in no event",
    command=REREAD
    + ", which makes the publication what it was; was it meant so: --keep-publication",
    needs=_PUBLISHED,
    earlier=True,
)
def publication_smaller(at: Situation) -> Seen | None:
    """A table, schema, column, operation, or row that the earlier set has published is not now."""
    now = _publication(at)
    then = at.before.publication(at.own.database, at.own.publication) if at.before else None
    if now is None or then is None:
        return None
    told = [f"{subject}: {why}" for subject, why in _less(at, then, now)]
    return Seen("; ".join(told)) if told else None


def _less(
    at: Situation, then: DatabasePublication, now: DatabasePublication
) -> Iterator[tuple[str, str]]:
    """What is published less; a table that is there no more is no table left out."""
    present = at.now.tables.get(at.own.database)
    for operation in set(then.publication.publish) - set(now.publication.publish):
        yield now.publication.name, f"{operation} is not published any more"
    for subject, why in narrowed(then.publication, now.publication):
        dropped = present is not None and "." in subject and subject not in present
        if why is not None and not dropped:
            yield subject, why
    columns = {str(table): table for table in now.publication.tables}
    for table in then.publication.tables:
        if (found := columns.get(str(table))) is not None and _hides(table, found):
            yield str(table), f"only {', '.join(found.columns or ())} of it is published"


def _hides(then: PublishedTable, now: PublishedTable) -> bool:
    return then.columns is None and now.columns is not None


@state(
    "S34",
    "replica identity is lost",
    gravity=Gravity.LOSES,
    risk="updates and deletes are refused, or come without a key",
    command="ALTER TABLE … ADD PRIMARY KEY, or REPLICA IDENTITY USING INDEX … or FULL; then "
    "compare the topic with the table",
    needs=_PUBLISHED,
)
def identity_lost(at: Situation) -> Seen | None:
    """A published table has no identity that the server can use, and updates are published."""
    found = _publication(at)
    if found is None or not {"update", "delete"} & set(found.publication.publish):
        return None
    without = [table.name for table in found.tables if not table.usable]
    return Seen(f"no usable replica identity: {', '.join(without)}") if without else None


@state(
    "S36",
    "table for heartbeats or signals is gone",
    gravity=Gravity.WILL_LOSE,
    risk="without heartbeats the slot stands still (S26), signals are not heard, and the task ends",
    command="create, publish and grant it: see what is said above",
    needs=(*_PUBLISHED, Part.SERVICE_TABLES),
)
def service_table_gone(at: Situation) -> Seen | None:
    """A table that the connector itself needs is not there, not published, or not writable."""
    told = []
    for table in at.now.service_tables:
        if table.connector != at.own.name:
            continue
        if not table.present:
            told.append(f"{table.table} for {table.use} is not there")
        elif not table.published:
            name = at.own.publication
            told.append(f"{table.table} for {table.use} is not in publication {name}")
        if table.lacks:
            told.append(f"{table.role} lacks {', '.join(table.lacks)} on {table.table}")
    return Seen("; ".join(told)) if told else None


@state(
    "S45",
    "source is a subscriber itself",
    about=About.SERVER,
    gravity=Gravity.NOTE,
    risk="after a recovery changes of the publisher are missing, and a restored copy takes what "
    "the publisher keeps for the real one",
    command="ALTER SUBSCRIPTION … DISABLE before a copy starts; compare origins after a recovery",
    needs=(Part.SERVER, Part.SUBSCRIPTIONS),
)
def subscriber(at: Situation) -> Seen | None:
    """A subscription is enabled; it has lost changes where the history is another one since."""
    names = [f"{one.database}.{one.name}" for one in at.now.subscriptions if one.enabled]
    if not names:
        return None
    was = at.before.server.history if at.before and at.before.server else at.server.history
    gravity = Gravity.LOSES if was != at.server.history else None
    return Seen(f"subscriptions {', '.join(names)}", gravity=gravity)
