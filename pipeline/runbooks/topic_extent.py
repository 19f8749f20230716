"""How far a loss of topics reaches: live topics against the newest archive and the offsets' backup.

Needs no ledger: topic ids, partition counts, where each log starts and ends, its configuration, and
the CRC of every batch that is still there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.errors import BackupError
from pipeline.kafka.archive.reading import archived
from pipeline.kafka.cluster.raw import RawReader
from pipeline.kafka.cluster.topics import Extent, Topic, describe, extents, known_extents
from pipeline.kafka.groups import groups
from pipeline.kafka.log.batches import check_crc, walk
from pipeline.kafka.log.place import Place
from pipeline.kafka.replay.target_topic import existing
from pipeline.repository.sets import BackupSet
from pipeline.wait import wait_until

RETENTION = ("retention.ms", "retention.bytes", "cleanup.policy")
FETCH = 4 << 20
NOTHING: Mapping[str, Mapping[str, str]] = {}
WITHIN, STILL = timedelta(seconds=60), timedelta(seconds=2)


@dataclass(frozen=True)
class Harmed:
    """A topic that is not as it was archived, and how; `present` is None where it is gone."""

    topic: str
    cdc: bool
    present: Topic | None
    findings: tuple[str, ...]
    unreadable: tuple[int, ...] = ()
    """Partitions with a batch that cannot be read."""

    def lines(self) -> Iterator[str]:
        for finding in self.findings:
            yield f"{self.topic}: {finding}"


def survey(
    config: PipelineConfig,
    archive: BackupSet,
    topics: Sequence[str] = (),
    *,
    same_life: bool = True,
    due: Mapping[str, Mapping[str, str]] = NOTHING,
) -> list[Harmed]:
    """Compare these topics, or all that the archive holds, with what the brokers have.

    Every batch of a topic that seems whole is read. Raises ServerError where a broker does not
    answer: what could not be looked at must not pass for sound. Without `same_life` the topics may
    have been made anew, as a replay does. `due` are overrides of topics that are not to have the
    archived ones.
    """
    known: Mapping[str, Any] = archive.manifest.facts["topics"]
    looked = (
        _topic(
            config,
            archive,
            name,
            {**known[name], "overrides": due.get(name, known[name]["overrides"])},
            same_life=same_life,
        )
        for name in topics or known
    )
    return [harmed for harmed in looked if harmed is not None]


def missing_groups(
    config: PipelineConfig, offsets: BackupSet, topics: Sequence[str] = ()
) -> list[str]:
    """Tell which groups of the backup lack offsets now, in these topics or in any."""
    now = {
        group.name: {position.spot[:2] for position in group.positions}
        for group in groups.committed(config.kafka)
    }
    told = []
    for group in groups.read(offsets):
        was = {p.spot[:2] for p in group.positions if not topics or p.topic in topics}
        if gone := was - now.get(group.name, set()):
            told.append(f"{group.name}: {len(gone)} of {len(was)} offsets are gone")
    return told


def standing_still(config: PipelineConfig, topics: Sequence[str]) -> dict[str, int]:
    """Wait until no log grows for a while; ServerError tells which one does."""
    if not topics:
        return {}
    places = [place for topic in describe(config.kafka, topics) for place in topic.places]
    before: dict[str, int] = {}

    def growing() -> str | None:
        ends = {str(p): log.high_watermark for p, log in extents(config.kafka, places).items()}
        grown = [place for place, end in ends.items() if before.get(place) != end]
        before.update(ends)
        return f"still written to: {', '.join(grown)}" if grown else None

    wait_until("nobody writes to what will be replaced", growing, within=WITHIN, every=STILL)
    return before


def fed_by_cdc(config: PipelineConfig, topic: str) -> bool:
    """Whether a connector of this pipeline writes the topic."""
    return topic.startswith(f"{config.cdc.topic_prefix}.")


def _topic(
    config: PipelineConfig,
    archive: BackupSet,
    name: str,
    then: Mapping[str, Any],
    *,
    same_life: bool,
) -> Harmed | None:
    cdc, now = fed_by_cdc(config, name), existing(config.kafka, name)
    if now is None:
        return Harmed(name, cdc, None, ("it is gone",))
    findings = list(_identity(now, then)) if same_life else []
    unreadable: tuple[int, ...] = ()
    if not findings:
        held, unled = known_extents(config.kafka, now.places)
        findings += _logs(archive, now, then, held)
        damage = {place.partition: f"[{place.partition}] {why}" for place, why in unled.items()}
        damage |= dict(_damage(config, held))
        unreadable = tuple(damage)
        findings += damage.values()
    return Harmed(name, cdc, now, tuple(findings), unreadable) if findings else None


def _identity(now: Topic, then: Mapping[str, Any]) -> Iterator[str]:
    if str(now.topic_id) != then["topic_id"]:
        yield f"it was made anew: topic id {now.topic_id}, archived {then['topic_id']}"
    if len(now.partitions) != len(then["partitions"]):
        yield f"{len(now.partitions)} partitions, archived {len(then['partitions'])}"


def _logs(
    archive: BackupSet, now: Topic, then: Mapping[str, Any], held: Mapping[Place, Extent]
) -> Iterator[str]:
    overrides = {n: now.overrides.get(n) for n in RETENTION}
    for name, value in overrides.items():
        if value != (was := then["overrides"].get(name)):
            yield f"{name} is {value}, expected {was}"
    keeps = {**then["defaults"], **then["overrides"]}
    for place, log in held.items():
        was = then["partitions"].get(str(place.partition))
        if was is None:
            continue
        if log.high_watermark < was["end"]:
            yield f"[{place.partition}] ends at {log.high_watermark}, archived up to {was['end']}"
        if log.start > was["log_start"] and _unexplained(archive, place, log.start, keeps):
            yield (
                f"[{place.partition}] starts at {log.start}, archived from {was['log_start']}, and "
                "its retention does not explain that"
            )


def _unexplained(archive: BackupSet, place: Place, start: int, keeps: Mapping[str, str]) -> bool:
    """Whether records before `start` are younger than the retention they were archived under."""
    if int(keeps.get("retention.bytes", -1)) >= 0:
        return False  # by size: any age may go
    allowed = int(keeps.get("retention.ms", -1))
    oldest = datetime.now(UTC) - timedelta(milliseconds=allowed)
    for partition in archived(archive, [place.topic]):
        if partition.index.partition == place.partition:
            return allowed < 0 or any(
                found.content.newest > oldest.timestamp() * 1000
                for segment, found in partition.inventories()
                if segment.first < start
            )
    return False


def _damage(config: PipelineConfig, held: Mapping[Place, Extent]) -> Iterator[tuple[int, str]]:
    """Read every batch of each partition, up to the first that is damaged."""
    with RawReader(config.kafka, FETCH) as reader:
        for place, log in held.items():
            try:
                for fetched in reader.batches(place, log.start, log.high_watermark, undecided=True):
                    for batch, view in walk(fetched.data, str(place)):
                        check_crc(batch, view, str(place))
            except BackupError as error:
                yield place.partition, str(error)
