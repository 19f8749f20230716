"""`pipeline restore slots`: publication and slot as they were."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cdc.state import kept
from pipeline.cdc.state.read import read
from pipeline.cli.shared import DEFAULT, Config, Origin, repository, say
from pipeline.errors import ConfigError, RecoveryRefused
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.kinds import DATABASE, LATEST, SYSTEM, chosen
from pipeline.runbooks.slots import SlotRestore


def restore_slots(
    *,
    config: Config = DEFAULT,
    source: Annotated[
        str, typer.Option("--from", "--set", help="label of the backup of slots")
    ] = LATEST,
    origin: Origin = None,
    advance_to: Annotated[
        str | None,
        typer.Option(help="move the slot to this LSN, where nothing published is skipped by that"),
    ] = None,
    without_connect: Annotated[
        bool, typer.Option("--without-connect", help="Connect is away: no connector can go on")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="only say what would be made")] = False,
) -> None:
    """Make publication and slot again, as a backup has them; the slot keeps its flags.

    What was committed before the new slot is for nobody behind it: `pipeline recover cdc` brings
    connectors and topics along. Slots of others are named, and left alone.
    """
    loaded = configuration.load(config)
    now = read(loaded)

    def here() -> dict[str, str]:
        if now.server is None:
            return {}
        return {SYSTEM: now.server.system_identifier, DATABASE: now.server.database}

    backup = chosen(repository(loaded), kept.KIND, source, origin=here, typed=origin, say=say)
    to = _position(advance_to)
    restore = SlotRestore(loaded, now, kept.read(backup), to, without_connect)
    for line in restore.lines():
        say(line)
    if told := [line for one in restore.preconditions() for line in one.lines()]:
        raise RecoveryRefused("nothing was touched:\n" + "\n".join(f"  {line}" for line in told))
    if plan:
        return
    slot = restore.run(say)
    say(f"slot {slot.name!r} stands at {slot.confirmed_flush_lsn}, {slot.wal_status}")
    say(f"next: pipeline recover cdc{' --way reread' if restore.missed else ''}")


def _position(text: str | None) -> Lsn | None:
    try:
        return Lsn.parse(text) if text else None
    except ValueError as error:
        raise ConfigError(f"--advance-to: {error}") from error
