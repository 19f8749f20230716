"""Scenario 4 as code: the schema registry is lost, or wrong; bring back every id as it was.

A record is read by the schema that its id stands for, for as long as it is kept. So an id must
come back as the id of the same schema, or the record is bytes; and a producer that registered
again meanwhile must not be merged with what was, where both gave one id to two schemas.

Prove the backup and say what differs; stop the connectors; keep what stands there; bring the
schemas back; start the registry cold, since one that runs answers from its memory over an empty
topic; prove all of it against the backup, and the ids in the records; let CDC go on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar

from pipeline.cdc import registry_probe, schemas
from pipeline.cdc.debezium import unfit
from pipeline.config import PipelineConfig
from pipeline.errors import RecoveryRefused, RestoreError, ServerError
from pipeline.kafka.archive import proof
from pipeline.kafka.cluster.topics import cluster_id
from pipeline.kafka.replay import target_topic
from pipeline.postgres.server.session import connect
from pipeline.registry import schemas as values
from pipeline.repository.journal import Journal
from pipeline.repository.kinds import CLUSTER, LATEST, chosen
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import held_connectors, registry_verdict, registry_ways, reread
from pipeline.runbooks.reconnect import not_stopped, problems, stopped
from pipeline.runbooks.registry_asked import Asked, Way
from pipeline.runbooks.runbook import Facts, Phase, Precondition, Runbook, Step
from pipeline.wait import wait_until

COLD = timedelta(minutes=10)
"""How long an operator has to start the registry again."""
NAMED = 10
"""Differences that are named; the others are counted."""


def new_recovery(config: PipelineConfig) -> Journal:
    """Open the log of a new recovery in the repository."""
    return Journal.new(config.repository.path, RegistryRecovery.kind)


@dataclass
class RegistryRecovery(Runbook):
    """One recovery of the registry. `restart` starts it cold, else the operator is asked to.

    `identity` is what the operator typed: the id of the cluster that it stands beside.
    """

    kind: ClassVar[str] = "registry"
    first: ClassVar[str] = "look"
    last: ClassVar[str] = "verify"
    config: PipelineConfig
    asked: Asked
    journal: Journal
    identity: str
    restart: Callable[[], None] | None = None
    observe: Callable[[str, Facts], None] = lambda _step, _facts: None
    gate: Callable[[], Sequence[str]] = list
    progress: Callable[[str], None] = lambda _: None
    _repository: Repository = field(init=False)

    def __post_init__(self) -> None:
        self._repository = Repository(FolderStore(self.config.repository.path))
        if (found := self.done.get(self.first)) is not None:
            self.asked = Asked.of(found)

    def identify(self) -> None:
        """Refuse unless the operator typed the id of the cluster beside which it stands."""
        if (found := cluster_id(self.config.kafka)) != self.identity:
            raise RecoveryRefused(f"typed {self.identity!r}, the cluster's id is {found}")

    def preconditions(self) -> Sequence[Precondition]:
        connectors = Precondition(
            "connectors",
            lambda: unfit(self.config),
            "They register schemas, and must be stopped, then go on",
            waiver="--without-cdc",
        )
        return (
            Precondition("no-other-recovery", self._no_other, "Two would undo each other"),
            Precondition("way", self._way_is_open, "See `pipeline recover registry --help`"),
            *((connectors, *self._stopped()) if self.asked.cdc else ()),
        )

    def _stopped(self) -> Iterator[Precondition]:
        without = "--without-cdc"
        yield held_connectors.precondition(self.config, self.kind, waiver=without)
        yield held_connectors.slot_kept(self.config, waiver=without)

    def _no_other(self) -> Iterator[str]:
        for journal in self.unfinished(self.config.repository.path):
            if journal.recovery != self.asked.instead_of:
                yield (
                    f"{journal.recovery} did not come to its end: pipeline recover registry "
                    f"--resume {journal.recovery}, or --instead-of {journal.recovery}"
                )

    def _way_is_open(self) -> Iterator[str]:
        if not self.config.registry.url:
            yield "registry.url is empty: say where the registry is"
            return
        facts = self._backup().manifest.facts
        if self.asked.way is not Way.STORAGE:
            if (why := self._away()) is not None:
                yield f"the registry must answer to take schemas: {why}"
            return
        if (storage := facts["storage"]) is None:
            yield f"{self._backup().label} holds no storage topic: take another --way"
            return
        if (told := registry_probe.standing(self.config)) is not None:
            yield f"{self.config.registry.url} answers ({told}): stop the registry, each one of it"
        elif (told := registry_probe.still_read(self.config, storage)) is not None:
            yield told

    def steps(self) -> Sequence[Step]:
        return (
            Step("look", Phase.PREPARE, self.look),
            Step("fence", Phase.STOP, self.fence, self._fenced, until="reconnect"),
            Step("keep", Phase.KEEP, self.keep),
            Step("restore", Phase.RESTORE, self.restore, self._restored, until="start_cold"),
            Step("start_cold", Phase.OPEN, self.start_cold),
            Step("prove", Phase.VERIFY, self.prove, until="reconnect"),
            Step("reconnect", Phase.RECONNECT, self.reconnect),
            Step("verify", Phase.VERIFY, self.verify),
        )

    def plan(self) -> Iterator[str]:
        """Say what differs from the backup, and what contradicts it; touches nothing."""
        backup = self._backup()
        yield f"{backup.label}: {len(schemas.inventory_of(backup).schemas)} versions"
        yield from registry_verdict.older(backup)
        away = ("the registry is away",)
        yield from registry_verdict.different(self.config, backup) if self._answers() else away

    def look(self) -> Facts:
        """Prove the backup, and refuse what would be overwritten; touches nothing."""
        if (name := self.asked.instead_of) is not None:
            other = Journal.named(self.config.repository.path, self.kind, name)
            other.abandon("another recovery was begun instead")
        backup = self._backup()
        if self.asked.backup is None:
            registry_verdict.refuse_one_that_lost(backup)
        walked = proof.walk(backup, schemas.BESIDE)
        if bad := [f"{p.subject}: {p.problem}" for p in walked if p.problem]:
            raise RestoreError(f"the backup {backup.label} is damaged: {'; '.join(bad[:5])}")
        then, told = schemas.inventory_of(backup), list[str]()
        if self.asked.way is not Way.STORAGE:
            there, _ = schemas.live(self.config)
            told = registry_verdict.refuse_what_stands_there(then, there, merge=self.asked.merge)
        for line in told[:NAMED]:
            self.progress(f"  {line}")
        return self.asked.as_facts() | {
            "backup": backup.label,
            "versions": len(then.schemas),
            "differences": told[:NAMED],
            "different": len(told),
        }

    def fence(self) -> Facts:
        """Stop the connectors, which register what they do not find."""
        if not self.asked.cdc:
            return {"connectors": [], "offsets": {}}
        return stopped(self.config)

    def _fenced(self, facts: Facts) -> str | None:
        return not_stopped(self.config, facts["connectors"])

    def keep(self) -> Facts:
        """Keep what the registry holds now; its storage topic is kept when it is removed."""
        if self.asked.way is Way.STORAGE:
            return {"kept": None}
        name = self.journal.recovery
        taken = schemas.take(self.config, self._repository, self.progress, evidence=name)
        return {"kept": taken.label}

    def restore(self) -> Facts:
        """Bring the schemas back."""
        backup = self._taken
        match self.asked.way:
            case Way.STORAGE:
                if told := list(self._way_is_open()):
                    raise ServerError("; ".join(told))
                return registry_ways.by_storage(
                    self.config, self._repository, backup, self.journal, self.progress
                )
            case Way.EXPORT:
                # a run that was killed within may have brought all of it
                again = self.asked.merge or self.journal.count("restore", "began") > 0
                self.journal.write("restore", "began")
                then, (there, _) = schemas.inventory_of(backup), schemas.live(self.config)
                registry_verdict.refuse_what_contradicts(then, there)  # registered since the look
                if any(values.schemas_changed(then, there)):
                    registry_ways.by_export(self.config, backup, merge=again)
                return registry_ways.settings(self.config, then)
            case Way.IDS:
                return registry_ways.by_ids(self.config, backup, self.journal)

    def _restored(self, facts: Facts) -> str | None:
        """Whether it is still there: the topic that was made, or what was imported."""
        if (name := facts.get("topic")) is None:
            return next(iter(registry_verdict.different(self.config, self._taken)), None)
        found = target_topic.existing(self.config.kafka, name)
        if found is None or str(found.topic_id) != facts["topic_id"]:
            return f"{name} was deleted, or made anew, since it was brought back"
        return None

    def start_cold(self) -> Facts:
        """Have the registry started by a process that has read nothing yet."""
        if self.restart is not None:
            self.restart()
        elif self.asked.way is not Way.STORAGE:
            self.progress("  stop the registry now, and start it: what it answers from its memory")
            self.progress("  tells nothing of what it has kept")
            wait_until("the registry stops", self._stands, within=COLD)
        self.progress("  waiting for the registry to answer: start it now, unless it starts itself")
        wait_until("the registry answers", self._away, within=COLD)
        return {"answers": schemas.live(self.config)[0].version}

    def _stands(self) -> str | None:
        return "it answers" if self._answers() else None

    def _away(self) -> str | None:
        return registry_probe.away(self.config)

    def _answers(self) -> bool:
        return self._away() is None

    def prove(self) -> Facts:
        """Compare all of it with the backup, and with the ids that archived records carry."""
        backup = self._taken
        wrong = registry_verdict.wrong(self.config, backup, self.journal.recovery)
        if wrong:
            raise RestoreError(f"not restored: {'; '.join(wrong[:NAMED])}")
        told = {
            "versions": len(schemas.live(self.config)[0].schemas),
            "ids_in_records": len(registry_verdict.carried(backup)),
        }
        return told | self._made_anew(backup)

    def _made_anew(self, backup: BackupSet) -> Facts:
        """Name the storage topic where the registry has made it anew, and this filled it."""
        now, told = schemas.storage_topic(self.config), backup.manifest.facts["topics"]
        if self.asked.way is Way.STORAGE or now is None:
            return {}
        if str(now.topic_id) == told.get(now.name, {}).get("topic_id"):
            return {}
        return {"targets": {now.name: str(now.topic_id)}, "made_empty": [now.name]}

    def reconnect(self) -> Facts:
        """Let CDC go on where it stood; a task that failed meanwhile comes back with it."""
        if self.asked.cdc:
            reread.go_on(self.config)
        return {"connectors": self.done["fence"]["connectors"]}

    def verify(self) -> Facts:
        """Ask for the ids in the records of the topics that connectors feed, and ask the gate."""
        wrong = list[str]()
        if self.asked.cdc:
            with connect(self.config.postgres, autocommit=True) as connection:
                wrong += problems(self.config, connection)
        wrong += self.gate()
        if wrong:
            raise RestoreError(f"not recovered: {'; '.join(wrong)}")
        return {"problems": 0}

    @property
    def _taken(self) -> BackupSet:
        return self._repository.get(self.done["look"]["backup"])

    def _backup(self) -> BackupSet:
        """The set that was named, else the newest of this cluster."""
        return chosen(
            self._repository,
            schemas.KIND,
            self.asked.backup or LATEST,
            origin=lambda: {CLUSTER: self.identity},
            typed=self.asked.origin,
            say=lambda line: self.progress(f"  {line}"),
        )
