"""The state that CDC is in, held against all that are known to lose."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from random import Random

from confluent_kafka import KafkaException
from confluent_kafka.admin import NewTopic

from checks.check import Observation, check
from checks.connectors import Connectors
from checks.subjects import BackupRepository
from fixtures.connect_material import connector
from fixtures.faults import connectors
from fixtures.scratch import Damage, Scratch
from pipeline.cdc.connectors import ConnectorOffset
from pipeline.cdc.state import kept
from pipeline.cdc.state.classify import classify
from pipeline.cdc.state.read import read
from pipeline.cdc.state.reading import Reading
from pipeline.cdc.state.states import Gravity
from pipeline.errors import NoBackup, ServerError
from pipeline.kafka.cluster.topics import admin
from pipeline.repository.journal import FILE, FOLDER
from pipeline.wait import wait_until

MADE = timedelta(seconds=30)


@check(
    "cdc.state-is-sound",
    on=Connectors,
    severity="blocker",
    advice="`pipeline status cdc` says of each state what is at risk, and what mends it; "
    "docs/cdc-states.md has all of them.",
)
def state_is_sound(connectors: Connectors) -> Iterator[Observation]:
    """No own connector, no slot of one, and nothing of the server is in a state that loses changes.

    Nor in one that will. Held against the newest set of CDC state; all states but those that only
    values show. What is of others is told by `pipeline status cdc`.
    """
    before = compared_with(BackupRepository.of(connectors.source.config))
    now = kept.with_histories(read(connectors.source.config), before)
    unknown = list[str]()
    for verdict in (each for each in classify(now, before).verdicts if each.own):
        yield Observation(verdict.name, None)
        unknown += verdict.unknown
        for one in verdict.findings:
            if one.gravity is not Gravity.NOTE:
                yield Observation(verdict.name, f"{one.state.id} {one.state.title}: {one.said}")
    if unknown:
        raise ServerError("; ".join(unknown))


def compared_with(repository: BackupRepository) -> Reading:
    """The newest set. One of before a recovery tells of topics and offsets that are no more."""
    before, where = kept.earlier(repository.sets), repository.sets.store.where
    if before is None:
        raise NoBackup("backup of slots; take one: pipeline backup cdc", where)
    for journal in sorted((repository.path / FOLDER).glob(f"*/{FILE}")):
        if journal.stat().st_mtime > before.taken.timestamp():
            since = f"backup of slots since {journal.parent.name}"
            raise NoBackup(f"{since}; take one: pipeline backup cdc --reread CONNECTOR", where)
    return before


@state_is_sound.detects
def second_offset(scratch: Scratch[Connectors], rng: Random) -> Damage:
    """The prefix was changed and changed back, and what was stored meanwhile stayed."""
    name = connector(scratch.config)
    connectors.stop(scratch)
    with connectors.own(scratch) as client:
        stale = ConnectorOffset({"server": "staging"}, {"lsn": rng.randrange(1, 1 << 20)})
        client.patch_offsets(name, [stale])
    return Damage(name, "an offset of another prefix is stored too", says="two offsets")


@state_is_sound.detects
def offset_under_another_key(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A prefix for each environment: the connector begins anew, or over a gap."""
    connectors.stop(scratch)
    connectors.reconfigure(scratch, topic_prefix="staging")
    return Damage(connector(scratch.config), "its prefix was changed", says="under another key")


@state_is_sound.detects
def event_topic_made_again(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Somebody emptied a topic by deleting it; the connector goes on as if nothing were."""
    connectors.stop(scratch)
    topic = f"{scratch.config.cdc.topic_prefix}.shop.orders"
    client = admin(scratch.config.kafka)
    client.delete_topics([topic])[topic].result()
    wait_until(f"{topic} made again", partial(_made, scratch, topic), within=MADE)
    return Damage(connector(scratch.config), f"{topic} was made again", says="was made again")


def _made(scratch: Scratch[Connectors], topic: str) -> str | None:
    """Why it cannot be made yet: its deletion takes a while."""
    client = admin(scratch.config.kafka)
    try:
        client.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    except KafkaException as error:
        return str(error)
    return None


@state_is_sound.detects
def another_connector_on_the_slot(scratch: Scratch[Connectors], rng: Random) -> Damage:
    """A copy for a test, which kept the name of the slot."""
    name = f"copy-{rng.randrange(100)}"
    connectors.add_connector(scratch, name, topic_prefix=name)
    return Damage(connector(scratch.config), f"{name} has its slot too", says="as well")
