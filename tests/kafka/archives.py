"""What tests of archives look at: a partition of a set, and what is wrong with the set."""

from pipeline.kafka.archive import proof
from pipeline.kafka.archive.reading import Archived, archived
from pipeline.kafka.archive.segments import Index
from pipeline.repository.sets import BackupSet


def held(backup: BackupSet, topic: str, partition: int = 0) -> Archived:
    return next(each for each in archived(backup, [topic]) if each.index.partition == partition)


def index_of(backup: BackupSet, topic: str, partition: int = 0) -> Index:
    return held(backup, topic, partition).index


def problems(backup: BackupSet) -> list[str]:
    return [f"{found.subject}: {found.problem}" for found in proof.walk(backup) if found.problem]
