"""The services' topics on a broker alone, with a ledger of what they were told."""

from pathlib import Path

from fixtures.ledger import Found, Ledger, classify
from fixtures.stacks.protocol import Stack
from fixtures.topic_reading import topic_survivors
from fixtures.workload.producer import clients
from fixtures.workload.topics import OWN_TOPICS, SYSTEM, create_topics
from fixtures.workload.workload import Clients
from pipeline.kafka.archive import archive
from pipeline.kafka.groups import groups
from pipeline.repository.journal import Journal
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.topic_asked import Asked
from pipeline.runbooks.topic_extent import survey
from pipeline.runbooks.topic_loss import TopicRecovery, new_recovery


class Shop:
    """Services that produce, their backups and their recovery; `clients` is to be entered."""

    def __init__(self, broker: Stack, folder: Path, seed: int) -> None:
        self.broker, self.config = broker, broker.config
        self.repository = Repository(FolderStore(self.config.repository.path))
        self.ledger = Ledger(folder)
        create_topics(self.config.kafka)
        tally, made = clients(
            self.config.kafka, list(OWN_TOPICS.values()), self.ledger, seed=seed, rate=400
        )
        self.clients = Clients(self.ledger, tally, made)

    def back_up(self) -> BackupSet:
        groups.take(self.config, self.repository)
        return archive.take(self.config, self.repository, list(OWN_TOPICS))

    def recovery(
        self, *names: str, lose: tuple[str, ...] = (), journal: Journal | None = None
    ) -> TopicRecovery:
        asked = Asked(names, lose=lose)
        return TopicRecovery(
            self.config, asked, journal or new_recovery(self.config), self.broker.nonce
        )

    def findings(self, backup: BackupSet) -> str:
        return "; ".join(line for one in survey(self.config, backup) for line in one.lines())

    def damage(self) -> dict[str, int]:
        """Keys that are not sound, by what is wrong with them."""
        survivors = {SYSTEM: topic_survivors(self.config.kafka)}
        keys = classify(self.ledger, survivors, system=SYSTEM).systems[SYSTEM].keys
        return {str(name): n for name, n in keys.items() if n and name is not Found.SOUND}
