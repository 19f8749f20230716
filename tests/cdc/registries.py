"""A captured table with the registry that its records need, backed up, emptied and recovered."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fixtures.stacks.protocol import Component, Stack
from pipeline.cdc import schemas
from pipeline.config import RepositoryConfig
from pipeline.kafka.archive import archive
from pipeline.repository.journal import Journal
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.reconnect import problems
from pipeline.runbooks.registry_asked import Asked, Way
from pipeline.runbooks.registry_loss import RegistryRecovery, new_recovery
from tests.cdc.source import Source, captured

OTHER = '{"type": "record", "name": "Other", "fields": [{"name": "o", "type": "int"}]}'


class Shop(NamedTuple):
    """A captured table, and the backup of the registry that its records need."""

    stack: Stack
    source: Source
    taken: BackupSet

    @property
    def ids(self) -> list[int]:
        found: list[int] = self.taken.manifest.facts["carried"][self.source.topic]
        return found

    def recovery(
        self,
        way: Way,
        *,
        merge: bool = False,
        backup: str | None = "ours",
        resume: Journal | None = None,
    ) -> RegistryRecovery:
        """One recovery as an operator begins it, with a registry that starts cold."""
        config = self.source.config
        asked = Asked(way, backup and self.taken.label, merge=merge)
        journal = resume or new_recovery(config)
        return RegistryRecovery(config, asked, journal, self.stack.nonce, self.start_cold)

    def start_cold(self) -> None:
        self.stack.stop(Component.REGISTRY)
        self.stack.start(Component.REGISTRY)

    def told(self) -> list[str]:
        """What the gate of every recovery says."""
        return problems(self.source.config, self.source.connection)


@contextmanager
def opened(stack: Stack, folder: Path) -> Iterator[Shop]:
    """Its sets are in a repository of its own: the registry is another one for who comes next."""
    with captured(stack, "kept", "id int PRIMARY KEY", "SELECT generate_series(1, 20)") as made:
        own = {"repository": RepositoryConfig(path=folder)}
        source = replace(made, config=made.config.model_copy(update=own))
        repository = Repository(FolderStore(folder))
        topics = archive.take(source.config, repository, [source.topic])
        taken = schemas.take(source.config, repository, topics=topics)
        yield Shop(stack, source, taken)


def emptied(stack: Stack) -> None:
    """Start the registry on a storage topic that is new."""
    stack.kill(Component.REGISTRY)
    stack.wipe(Component.REGISTRY)
    stack.start(Component.REGISTRY)
