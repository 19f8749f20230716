"""What the brokers tell of CDC: the topics that connectors write, and those that Connect needs."""

from collections.abc import Iterable, Sequence

from confluent_kafka import KafkaException

from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.reading import TopicRead, Unread
from pipeline.config import KafkaConfig
from pipeline.errors import ServerError
from pipeline.kafka.cluster.momentary import reason
from pipeline.kafka.cluster.topics import admin, described, known_extents

GLANCE = 5.0
"""Seconds within which a broker must answer: a state is looked at, not waited for."""


class Topics:
    """One reading of topics; what is not told is noted, and a topic that is gone is left out."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._present: frozenset[str] = frozenset()
        self.unread: list[Unread] = []
        self.answers = False

    def look(self) -> None:
        """Ask once, and not for as long as a backup would, whether any broker answers."""
        try:
            self._present = frozenset(admin(self._config).list_topics(timeout=GLANCE).topics)
            self.answers = True
        except KafkaException as error:
            where = self._config.bootstrap_servers
            why = f"Kafka on {where} does not answer: {reason(error)}"
            self.unread += [
                Unread(part=part, why=why) for part in (Part.TOPICS, Part.INTERNAL_TOPICS)
            ]

    def written(self, names: Iterable[str]) -> tuple[TopicRead, ...]:
        """Topics that connectors write; one of them that is gone is not in the answer."""
        return self._read(Part.TOPICS, sorted(set(names) & self._present))

    def internal(self, names: Sequence[str]) -> tuple[TopicRead, ...]:
        """Topics where Connect keeps configurations, offsets and statuses."""
        for name in (name for name in names if self.answers and name not in self._present):
            why = "there is no such topic; connect.internal_topics names those of the workers"
            self.unread.append(Unread(part=Part.INTERNAL_TOPICS, name=name, why=why))
        return self._read(Part.INTERNAL_TOPICS, [name for name in names if name in self._present])

    def _read(self, part: Part, names: Sequence[str]) -> tuple[TopicRead, ...]:
        if not self.answers or not names:
            return ()
        try:
            found, missing = described(self._config, names)
            ends, unled = known_extents(
                self._config, [at for topic in found for at in topic.places]
            )
        except ServerError as error:
            self.unread.append(Unread(part=part, why=str(error)))
            return ()
        told = dict(missing) | {place.topic: why for place, why in unled.items()}
        self.unread += [self._refused(part, name, why) for name, why in told.items()]
        return tuple(
            TopicRead(
                name=topic.name,
                topic_id=str(topic.topic_id),
                policy=(topic.defaults | topic.overrides).get("cleanup.policy", ""),
                ends={at.partition: ends[at].end for at in topic.places},
            )
            for topic in found
            if topic.name not in told
        )

    def _refused(self, part: Part, name: str, why: str) -> Unread:
        refused = "TOPIC_AUTHORIZATION_FAILED" in why
        rights = "--operation Describe --operation DescribeConfigs"
        grant = f"kafka-acls --add --allow-principal User:… {rights} --topic {name}"
        return Unread(part=part, name=name, why=why, grant=grant if refused else None)
