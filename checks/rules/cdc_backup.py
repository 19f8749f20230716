"""The backup of slots, publications, connectors and offsets: all of it there, in an order."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from checks.cdc_backup import CdcBackup
from checks.check import Observation, check
from fixtures.faults import backups
from fixtures.scratch import Damage, Scratch
from pipeline.cdc.state import kept
from pipeline.cdc.state.classify import classify
from pipeline.cdc.state.connect import Connector
from pipeline.cdc.state.reading import Reading
from pipeline.cdc.state.settings import masked
from pipeline.repository.kinds import INCOMPLETE

DAILY = timedelta(hours=26)
"""How old the newest may be: it is taken daily, and a run may be late."""
OF_SLOT = ("plugin", "database", "restart_lsn", "confirmed_flush_lsn", "wal_status", "two_phase")
OF_CONNECTOR = ("connector.class", "database.dbname", "topic.prefix", "slot.name")
POSITIONS = ("S03", "S04", "S06")


@check(
    "cdc.backup-metadata-complete",
    on=CdcBackup,
    severity="blocker",
    advice="A slot, publication or connector could not be made again as it was: see what the run "
    "said, grant what is missing, and run `pipeline backup cdc`.",
)
def backup_metadata_complete(cdc: CdcBackup) -> Iterator[Observation]:
    """The newest set tells all of each slot, publication and connector, and no secret."""
    manifest, reading = cdc.backup.manifest, cdc.reading
    age = datetime.now(UTC) - manifest.finished
    old = f"it is {age.total_seconds() / 3600:.0f} hours old, and taken daily"
    yield Observation(cdc.backup.label, old if age > DAILY else None)
    for what, why in manifest.facts.get(INCOMPLETE, {}).items():
        yield Observation(what, f"it was not read: {why}")
    for slot in cdc.told.get("slots", []):
        yield from _slot(slot)
    yield from _asked(cdc)
    for publication in reading.publications:
        empty = None if publication.tables else "the set tells no table of it"
        yield Observation(publication.publication.name, empty)
    for connector in reading.connectors:
        yield from _connector(reading, connector)


def _slot(told: dict[str, Any]) -> Iterator[Observation]:
    if told.get("slot_type", "logical") != "logical":
        return
    missing = [field for field in OF_SLOT if field not in told]
    lacks = f"the set does not tell its {', '.join(missing)}"
    yield Observation(str(told.get("name")), lacks if missing else None)


def _asked(cdc: CdcBackup) -> Iterator[Observation]:
    """Slot and publication that [cdc] names."""
    slot, publication = cdc.asked.slot, cdc.asked.publication
    yield Observation(slot, None if cdc.reading.slot(slot) else "the set does not hold this slot")
    names = {found.publication.name for found in cdc.reading.publications}
    lacking = None if publication in names else "the set does not hold this publication"
    yield Observation(publication, lacking)


def _connector(reading: Reading, connector: Connector) -> Iterator[Observation]:
    missing = [setting for setting in OF_CONNECTOR if not connector.config.get(setting)]
    lacks = f"the set does not tell its {', '.join(missing)}"
    yield Observation(connector.name, lacks if missing else None)
    clear = ", ".join(set(masked(connector.name, connector.config)[1]) - set(connector.digests))
    yield Observation(connector.name, f"in the clear: {clear}" if clear else None)
    if connector.own and not missing:
        held = reading.slot(connector.slot) is not None
        yield Observation(connector.slot, None if held else "the set does not hold this slot")
        published = any(p.publication.name == connector.publication for p in reading.publications)
        lacking = None if published else "the set does not hold this publication"
        yield Observation(connector.publication, lacking)


def edited(scratch: Scratch[Any], change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the state of the newest set, and seal it anew."""
    backup = scratch.copy.backup
    told = json.loads(scratch.path(f"{backup.prefix}{kept.OBJECT}").read_bytes())
    change(told)
    backups.replace_object(scratch, backup, kept.OBJECT, json.dumps(told).encode())


@backup_metadata_complete.detects
def field_dropped(scratch: Scratch[CdcBackup], rng: Random) -> Damage:
    """A script of another version, which did not know the column."""
    field = rng.choice(OF_SLOT)
    edited(scratch, lambda told: told["slots"][0].pop(field))
    return Damage(scratch.config.cdc.slot, f"its {field} is missing", says=f"tell its {field}")


@backup_metadata_complete.detects
def slot_left_out(scratch: Scratch[CdcBackup], _rng: Random) -> Damage:
    """Dropped for an hour of maintenance, at the hour of the backup."""
    edited(scratch, lambda told: told.update(slots=[]))
    return Damage(scratch.config.cdc.slot, "it is not in the set", says="not hold this slot")


@backup_metadata_complete.detects
def publication_left_out(scratch: Scratch[CdcBackup], _rng: Random) -> Damage:
    """A role that connects to another database."""
    edited(scratch, lambda told: told.update(publications=[]))
    name = scratch.config.cdc.publication
    return Damage(name, "it is not in the set", says="not hold this publication")


@backup_metadata_complete.detects
def tables_of_a_publication_left_out(scratch: Scratch[CdcBackup], _rng: Random) -> Damage:
    """Its name only."""
    edited(scratch, lambda told: told["publications"][0].update(tables=[]))
    name = scratch.config.cdc.publication
    return Damage(name, "its tables are not in the set", says="no table of it")


@backup_metadata_complete.detects
def settings_left_out(scratch: Scratch[CdcBackup], _rng: Random) -> Damage:
    """The list of connectors, and not what each is told."""
    edited(scratch, lambda told: told["connectors"][0].update(config={}))
    return Damage("shop", "its settings are not in the set", says="does not tell its connector")


@backup_metadata_complete.detects
def secret_in_the_clear(scratch: Scratch[CdcBackup], rng: Random) -> Damage:
    """Connect's own answer, stored as it came."""
    password = {"database.password": f"swordfish{rng.randrange(100)}"}
    edited(scratch, lambda told: told["connectors"][0]["config"].update(password))
    return Damage("shop", "its password is in the set", says="in the clear: database.password")


@backup_metadata_complete.detects
def connect_did_not_answer(scratch: Scratch[CdcBackup], _rng: Random) -> Damage:
    """A worker that restarted just then; the set has the slots alone."""
    missing = {"offsets": "GET http://connect:8083/connectors/shop/offsets: ConnectTimeout"}
    backups.change_fact(scratch, INCOMPLETE, missing, scratch.copy.backup)
    return Damage("offsets", "Connect was away", says="it was not read")


@backup_metadata_complete.detects
def job_stopped_days_ago(scratch: Scratch[CdcBackup], rng: Random) -> Damage:
    """A timer that was disabled with the host it ran on."""
    backup = scratch.copy.backup
    days = timedelta(days=rng.randrange(2, 9))
    times = {"started": backup.manifest.started - days, "finished": backup.manifest.finished - days}
    backups.reseal(scratch, backup, **times)
    return Damage(backup.label, f"it is {days.days} days old", says="hours old")


@check(
    "cdc.backup-positions",
    on=CdcBackup,
    severity="blocker",
    advice="From such positions nobody can go on: `pipeline status cdc` says what is wrong on the "
    "servers themselves; once it is sound, run `pipeline backup cdc`.",
)
def backup_positions(cdc: CdcBackup) -> Iterator[Observation]:
    """Each slot and offset of the newest set has a position, in order, within the server's WAL."""
    reading, server = cdc.reading, cdc.reading.server
    if server is None:
        yield Observation(cdc.backup.label, "the set does not tell where the server's WAL ends")
        return
    yield Observation(cdc.backup.label, _agrees(cdc))
    for slot in reading.slots:
        if slot.slot_type == "logical":
            yield Observation(slot.name, slot.lost)
            confirmed, begins = slot.confirmed_flush_lsn, slot.restart_lsn
            none = None if confirmed else "the set does not tell what it has confirmed"
            yield Observation(slot.name, none)
            if confirmed and begins and not begins <= confirmed <= server.flush_lsn:
                told = f"{begins}, {confirmed}, and the WAL ends at {server.flush_lsn}"
                yield Observation(slot.name, f"its positions are not in order: {told}")
    for connector in (each for each in reading.connectors if each.own):
        yield Observation(connector.name, _untold(connector))
    for verdict in classify(reading, None).verdicts:
        for one in (one for one in verdict.findings if one.state.id in POSITIONS):
            yield Observation(verdict.name, f"{one.state.title}: {one.said}")


def _agrees(cdc: CdcBackup) -> str | None:
    """Whether manifest and state tell of the same moment."""
    server, facts = cdc.reading.server, cdc.backup.manifest.facts
    told = (facts.get("system_identifier"), facts.get("timeline"), facts.get("lsn"))
    found = server and (*server.history, str(server.flush_lsn))
    return None if told == found else f"its manifest tells {told}, its state {found}"


def _untold(connector: Connector) -> str | None:
    if not connector.mine:
        return "the set has no offset of it"
    if any(one.snapshotting for one in connector.mine):
        return None
    if connector.lsn is None:
        return f"its offset names no LSN: {connector.mine[0].offset}"
    return None if connector.history else "the set does not tell of which history its offset is"


@backup_positions.detects
def position_missing(scratch: Scratch[CdcBackup], rng: Random) -> Damage:
    """A column that the backup's role could not see."""
    field, untold = rng.choice(
        [("restart_lsn", "its WAL is gone"), ("confirmed_flush_lsn", "what it has confirmed")]
    )
    edited(scratch, lambda told: told["slots"][0].update({field: None}))
    return Damage(scratch.config.cdc.slot, f"its {field} is null", says=untold)


@backup_positions.detects
def position_behind_the_end(scratch: Scratch[CdcBackup], rng: Random) -> Damage:
    """The positions of another server, by a connection that was meant for its replica."""
    beyond = f"{rng.randrange(1, 9)}F/0"
    edited(scratch, lambda told: told["slots"][0].update(confirmed_flush_lsn=beyond))
    return Damage(scratch.config.cdc.slot, f"it has confirmed {beyond}", says="not in order")


@backup_positions.detects
def offset_behind_the_end(scratch: Scratch[CdcBackup], rng: Random) -> Damage:
    """A database that was restored, and a Connect that was not."""

    def ahead(told: dict[str, Any]) -> None:
        told["connectors"][0]["offsets"][0]["offset"]["lsn_commit"] = rng.randrange(
            1 << 30, 1 << 40
        )

    edited(scratch, ahead)
    return Damage("shop", "its offset lies behind the end", says="ahead of the server")


@backup_positions.detects
def offset_before_the_slot(scratch: Scratch[CdcBackup], rng: Random) -> Damage:
    """Offsets read first and slots last: what was delivered in between looks lost."""

    def back(told: dict[str, Any]) -> None:
        told["connectors"][0]["offsets"][0]["offset"]["lsn_commit"] = rng.randrange(1_100, 1_900)

    edited(scratch, back)
    return Damage("shop", "its offset is before its slot", says="slot ahead of the offset")


@backup_positions.detects
def offset_left_out(scratch: Scratch[CdcBackup], _rng: Random) -> Damage:
    """Slots only, as the old script did it."""
    edited(scratch, lambda told: told["connectors"][0].update(offsets=[]))
    return Damage("shop", "its offset is not in the set", says="no offset of it")


@backup_positions.detects
def history_left_out(scratch: Scratch[CdcBackup], _rng: Random) -> Damage:
    """After a recovery nobody could tell that the offset is of another timeline."""
    edited(scratch, lambda told: told["connectors"][0].update(history=None))
    return Damage("shop", "its history is not in the set", says="of which history")


@backup_positions.detects
def state_of_another_moment(scratch: Scratch[CdcBackup], rng: Random) -> Damage:
    """The object of another set, put in this one's place."""
    later = f"0/{rng.randrange(0x2000, 0x9000):X}"
    edited(scratch, lambda told: told["server"].update(flush_lsn=later))
    label = scratch.copy.backup.label
    return Damage(label, "its state is of another moment", says="its manifest tells")
