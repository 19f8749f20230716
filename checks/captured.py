"""What a connector makes of what is published, by its settings: topics, and what it drops."""

from collections.abc import Iterator

from checks import transforms
from pipeline.cdc.include_lists import Settings
from pipeline.config import PipelineConfig
from pipeline.postgres.replication.slots import PLUGIN

_DROPS = {"c": "inserts", "u": "updates", "d": "deletes"}
_NAMING = "SchemaTopicNamingStrategy"


def strays(config: PipelineConfig, told: Settings) -> Iterator[str]:
    """Yield how a connector is told to read, or to write, elsewhere than [cdc] says."""
    expected = {
        "publication.name": config.cdc.publication,
        "slot.name": config.cdc.slot,
        "database.dbname": config.postgres.dbname,
        "plugin.name": PLUGIN,
        "topic.prefix": config.cdc.topic_prefix,
        "topic.delimiter": ".",
    }
    without = {"plugin.name": "decoderbufs", "topic.delimiter": "."}  # what Debezium takes then
    for name, wanted in expected.items():
        found = told.get(name, without.get(name, "nothing"))
        if found != wanted and "${" not in found:  # a reference only the worker resolves
            yield f"{name} is {found}, expected {wanted}"
    naming = told.get("topic.naming.strategy", _NAMING)
    if not naming.endswith(_NAMING):
        yield f"topic.naming.strategy is {naming}: topics are not called PREFIX.SCHEMA.TABLE"


def drops(told: Settings) -> Iterator[str]:
    """Yield the settings with which events get lost on their way, whatever their table."""
    skipped = told.get("skipped.operations", "").replace(" ", "").split(",")
    for operation in sorted(_DROPS.keys() & set(skipped)):
        yield f"skipped.operations: {_DROPS[operation]} never arrive"
    if told.get("tombstones.on.delete", "true").lower() != "true":
        yield "tombstones.on.delete is false: compaction keeps what was deleted"
    if told.get("errors.tolerance", "none").lower() != "none":
        yield "errors.tolerance: an event that cannot be converted is dropped, and nothing fails"
    failure = told.get("event.processing.failure.handling.mode", "fail")
    if failure.lower() != "fail":
        yield f"event.processing.failure.handling.mode is {failure}: an event that fails is dropped"


def reshaped(told: Settings, topics: list[str]) -> Iterator[str]:
    """Yield what its transforms do to events that those topics should hold."""
    for transform in transforms.of(told):
        harm = next(filter(None, (transform.harm(topic) for topic in topics)), None)
        if harm is not None:
            yield f"transform {transform.alias} ({transform.kind}) {harm}"
