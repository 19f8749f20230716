"""How schemas come back into a registry: three ways, each of which keeps their ids."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.cdc import schemas
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, RestoreError
from pipeline.kafka.replay import target_topic
from pipeline.kafka.replay.replay import Replay
from pipeline.kafka.replay.replay_journal import journal_of, new_journal
from pipeline.kafka.replay.replay_plan import Mode
from pipeline.kafka.replay.replay_wish import Wish, make
from pipeline.registry import apicurio
from pipeline.registry.client import RegistryClient
from pipeline.registry.schemas import READWRITE, Inventory, in_order
from pipeline.repository.journal import Journal
from pipeline.repository.sets import BackupSet, Repository
from pipeline.runbooks import topic_removal
from pipeline.runbooks.runbook import Facts

IMPORT = "IMPORT"
Say = Callable[[str], None]


def by_storage(
    config: PipelineConfig, repository: Repository, backup: BackupSet, journal: Journal, say: Say
) -> Facts:
    """Make the storage topic anew as it was, record for record; what stood there is kept first."""
    name = backup.manifest.facts["storage"]
    done = [one for one in journal.lines() if one["result"] == "began"]
    replay = journal_of(config, done[-1]["name"]) if done else None
    told = replay.done() if replay and replay.path.exists() else {}
    kept, standing = None, target_topic.existing(config.kafka, name)
    if standing is not None and str(standing.topic_id) != told.get("target", {}).get("topic_id"):
        found, logs = topic_removal.keep(config, repository, [name], journal.recovery, say)
        kept = found.label if found else None
        topic_removal.refuse_unkept(logs, ())
        if more := topic_removal.remove(config, standing, logs[name]):
            raise RestoreError(f"{more}: a registry still writes to it. Stop each one, then go on")
        replay, told = None, {}
    wish = Wish(name, archive=backup.label, mode=Mode.EXACT)
    if replay is None:
        replay = new_journal(config, name)
        journal.write("restore", "began", name=replay.recovery)
    if "replay" not in told:
        Replay(config, make(config, repository, wish), replay, progress=say).run()
    made = target_topic.existing(config.kafka, name)
    return {"topic": name, "topic_id": str(made.topic_id) if made else "", "kept": kept}


def by_export(config: PipelineConfig, backup: BackupSet, *, merge: bool) -> None:
    """Import Apicurio's own export with its ids."""
    own = apicurio.beside(config.registry)
    if own is None:
        raise ConfigError(f"{config.registry.url} is no Apicurio by its address: say --way ids")
    with own:
        own.bring_in(schemas.content(backup, schemas.EXPORT), merge=merge)


def settings(config: PipelineConfig, then: Inventory) -> Facts:
    """Put back what no export holds, or somebody changed: levels, modes, settings of Apicurio."""
    changed = []
    if (own := apicurio.beside(config.registry)) is not None:
        with own:
            now = own.settings()
            for name, value in then.settings.items():
                if name in now and now[name] != value:
                    own.set(name, value)
                    changed.append(name)
    with RegistryClient(config.registry) as client:
        _levels_and_modes(client, then)
    return {"versions": len(then.schemas), "settings": changed}


def by_ids(config: PipelineConfig, backup: BackupSet, journal: Journal) -> Facts:
    """Register every schema under its id and version, what is referred to first.

    A registry that answers yes and gives another id is refused at the first one.
    """
    then = schemas.inventory_of(backup)
    wanted = [one for one in in_order(then.schemas) if one.schema and one.id is not None]
    with RegistryClient(config.registry) as client, _importing(client, journal):
        for one in wanted:
            given = client.register(
                one.subject,
                one.schema or "",
                one.type,
                references=one.references,
                at=(one.id or 0, one.version),
            )
            if given != one.id:
                raise RestoreError(
                    f"{client.url} said yes to mode {IMPORT} and gave {one} id {given}, expected "
                    f"{one.id}: it keeps no ids by this interface. Empty it, and take another way"
                )
    with RegistryClient(config.registry) as client:
        for one in wanted:
            if one.deleted:
                client.delete_version(one.subject, one.version)
    settings(config, then)
    return {"versions": len(wanted), "left_out": len(then.schemas) - len(wanted)}


@contextmanager
def _importing(client: RegistryClient, journal: Journal) -> Iterator[None]:
    """Put the registry into mode IMPORT, and the old mode back whatever happens.

    The old mode is in the journal first: a run that was killed within leaves it to the next one.
    """
    told = [one for one in journal.lines() if one["result"] == "importing"]
    old = told[0]["mode"] if told else client.mode() or READWRITE
    journal.write("restore", "importing", mode=old)
    client.set_mode(IMPORT)
    try:
        yield
    finally:
        client.set_mode(old)


def _levels_and_modes(client: RegistryClient, then: Inventory) -> None:
    now = client.inventory()
    if then.compatibility and now.compatibility != then.compatibility:
        client.set_compatibility(then.compatibility)
    for subject, level in then.subject_compatibility.items():
        if now.subject_compatibility.get(subject) != level:
            client.set_compatibility(level, subject)
    for subject, mode in then.subject_modes.items():
        if now.subject_modes.get(subject) != mode:
            client.set_mode(mode, subject)
    if now.mode != then.mode:
        client.set_mode(then.mode)
