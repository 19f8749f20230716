"""Which connectors are this pipeline's, by their settings."""

from collections.abc import Iterator, Mapping

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.names import renames
from pipeline.config import PipelineConfig

CLASSES = {"PostgresConnector", "Postgres"}
"""How Connect may be told the class: by its whole name, the last of it, or without `Connector`
(Plugins.newConnector of Kafka Connect)."""
DEFAULTS = {"slot.name": "debezium", "publication.name": "dbz_publication"}


def own_connectors(config: PipelineConfig, connect: ConnectClient) -> list[str]:
    """Name the connectors of this pipeline: as configured, else those that read its slot."""
    if config.connect.connectors:
        return list(config.connect.connectors)
    return [name for name in connect.names() if reads(config, connect.config(name))]


def unfit(config: PipelineConfig) -> Iterator[str]:
    """Tell why connectors do not feed this pipeline's topics: a precondition of recoveries."""
    with ConnectClient(config.connect) as connect:
        known, own = connect.names(), own_connectors(config, connect)
        if not own:
            yield (
                f"no connector at {connect.url} has slot {config.cdc.slot!r} in database "
                f"{config.postgres.dbname!r}"
            )
        for name in own:
            if name not in known:
                there = ", ".join(known) or "none"
                yield f"connect.connectors names {name!r}, and {connect.url} has {there}"
                continue
            yield from strays(config, name, connect.config(name))


def strays(config: PipelineConfig, name: str, told: Mapping[str, str]) -> Iterator[str]:
    """Say by which settings a connector reads, or writes, elsewhere than is configured."""
    expected = {"publication.name": config.cdc.publication, "slot.name": config.cdc.slot}
    if renames(told) is None:
        expected["topic.prefix"] = config.cdc.topic_prefix
    for setting, wanted in expected.items():
        found = (DEFAULTS | dict(told)).get(setting, wanted)
        if found != wanted and "${" not in found:  # which only the worker resolves
            yield f"{name} has {setting}={found}, and [cdc] says {wanted}"


def resolved(config: PipelineConfig, told: Mapping[str, str]) -> dict[str, str]:
    """Say what we know of settings of an own connector that refer to what its worker looks up."""
    known = {
        "slot.name": config.cdc.slot,
        "publication.name": config.cdc.publication,
        "database.dbname": config.postgres.dbname,
    }
    if renames(told) is None:
        known["topic.prefix"] = config.cdc.topic_prefix
    return {setting: value for setting, value in known.items() if "${" in told.get(setting, "")}


def dropping(config: PipelineConfig) -> Iterator[str]:
    """Tell which of this pipeline's connectors drops its slot, and what waits in it, at its end."""
    with ConnectClient(config.connect) as connect:
        known = connect.names()
        for name in (name for name in own_connectors(config, connect) if name in known):
            drops = connect.config(name).get("slot.drop.on.stop", "false").lower() == "true"
            if drops and connect.status(name).tasks:
                yield f"{name} has slot.drop.on.stop=true: to stop it drops what waits in its slot"


def idle(config: PipelineConfig) -> Iterator[str]:
    """Tell which of this pipeline's connectors passes nothing on until somebody has it go on."""
    with ConnectClient(config.connect) as connect:
        for name in own_connectors(config, connect):
            trouble = connect.status(name).trouble or ""
            if any(state in trouble for state in ("PAUSED", "STOPPED", "FAILED")):
                yield f"{name}: {trouble}"


def other_connectors(config: PipelineConfig, connect: ConnectClient) -> dict[str, str]:
    """Say what every other connector of a PostgreSQL reads: a recovery leaves it alone.

    Its slot may be on the server that is recovered all the same, and is gone then.
    """
    own, told = set(own_connectors(config, connect)), {}
    for name in connect.names():
        settings = {**DEFAULTS, **connect.config(name)}
        if name not in own and is_postgres(settings["connector.class"]):
            where = f"{settings.get('database.hostname')}/{settings.get('database.dbname')}"
            told[name] = f"slot {settings['slot.name']!r} of {where}"
    return told


def modes(config: PipelineConfig) -> dict[str, str]:
    """Read the settings by which this pipeline's connector writes: the first one's."""
    with ConnectClient(config.connect) as connect:
        return next((connect.config(name) for name in own_connectors(config, connect)), {})


def reads(config: PipelineConfig, told: Mapping[str, str]) -> bool:
    """Whether a connector reads this pipeline's slot, by its settings.

    A slot of that name in another database is another server's. A host is not compared: Connect
    may know the server by another name than we do, and a connector that is overlooked goes on
    during a recovery.
    """
    told = {**DEFAULTS, **told}
    database = told.get("database.dbname", "${}")
    here = database == config.postgres.dbname or "${" in database  # which only the worker resolves
    return is_postgres(told["connector.class"]) and told["slot.name"] == config.cdc.slot and here


def is_postgres(name: str) -> bool:
    """Whether a class of connectors, however Connect is told it, is Debezium's for PostgreSQL."""
    return name.rpartition(".")[2] in CLASSES
