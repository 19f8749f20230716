"""`pipeline recover cdc`: slot, publication, connectors and offsets back in service."""

from collections.abc import Iterable
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cdc.state import kept
from pipeline.cli.resumable import finished, refuse_as_things_stand, resumable
from pipeline.cli.shared import DEFAULT, Config, Origin, WithoutTopic, repository, reread_noted, say
from pipeline.errors import ConfigError
from pipeline.repository.journal import Journal
from pipeline.repository.kinds import chosen
from pipeline.runbooks.cdc import Asked, CdcRecovery, Way, new_recovery


def recover_cdc(
    *,
    config: Config = DEFAULT,
    way: Annotated[
        Way,
        typer.Option(
            help="needed: go on where all is sound, else decode what is missing again from base "
            "backup and archive, or read every row again; redecode: never the latter; reread: the "
            "latter in any case; signal: as needed, in chunks beside the stream"
        ),
    ] = Way.NEEDED,
    source: Annotated[
        str | None, typer.Option("--from", help="label of a backup of slots; else the newest")
    ] = None,
    origin: Origin = None,
    terminate: Annotated[
        int | None,
        typer.Option("--terminate-pid", help="server process that reads our slot, and is ended"),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(help="SETTING=FILE of a connector that is made again; again for each"),
    ] = None,
    keep_publication: Annotated[
        bool, typer.Option("--keep-publication", help="it was changed on purpose")
    ] = False,
    without_topic: WithoutTopic = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="only say what is wrong, and what would be done")
    ] = False,
    identity: Annotated[
        str | None, typer.Option(help="system identifier of the source; asked otherwise")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="name of an interrupted recovery")] = None,
) -> None:
    """Bring slot, publication, connectors and offsets back; rows are read again where they must.

    Clients may write all the while. Connectors and slots of others are named, and left alone.
    """
    loaded = configuration.load(config)
    if source is not None:  # told before servers are asked
        chosen(repository(loaded), kept.KIND, source)
    asked = Asked(
        way=way,
        source=source,
        origin=origin,
        terminate=terminate,
        secrets=_secrets(secret or ()),
        keep_publication=keep_publication,
        without_topics=without_topic or (),
    )
    journal = new_recovery(loaded)
    if plan:
        recovery = CdcRecovery(loaded, asked, journal, "", progress=say)
        for line in recovery.plan():
            say(line)
        refuse_as_things_stand(recovery)
        return
    if resume is not None:
        journal = Journal.named(loaded.repository.path, CdcRecovery.kind, resume)
        if CdcRecovery.first not in journal.done():
            raise ConfigError(f"{resume} was refused before it began: start a new recovery")
        if finished(journal, CdcRecovery.last):
            return
    typed = identity or typer.prompt("System identifier of the source")
    recovery = CdcRecovery(loaded, asked, journal, typed, progress=say)
    again = f"pipeline recover cdc --resume {journal.recovery} --identity {typed}"
    with resumable(journal, CdcRecovery.first, f"to go on: {again}"):
        recovery.run()
    done = journal.done()
    anew = [*done["fence"]["connectors"], *done["connectors"]["made"]]
    say(f"next: {reread_noted(anew if done['reconnect']['reread'] else ())}")


def _secrets(told: Iterable[str]) -> dict[str, str]:
    found = dict[str, str]()
    for one in told:
        setting, equals, path = one.partition("=")
        if not (setting and equals and path):
            raise ConfigError(f"--secret: expected SETTING=FILE, found {one!r}")
        found[setting] = path
    return found
