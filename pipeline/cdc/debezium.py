"""The connector configuration that this project recovers with, and what its offsets mean."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from pipeline.cdc.connectors import ConnectClient
from pipeline.config import PipelineConfig, PostgresConfig

SnapshotMode = Literal["initial", "when_needed", "always", "no_data"]
CLASS = "PostgresConnector"
"""How Connect may be told the class: by its whole name, or by the last of it."""
DEFAULTS = {"slot.name": "debezium", "publication.name": "dbz_publication"}


def own_connectors(config: PipelineConfig, connect: ConnectClient) -> list[str]:
    """Name the connectors of this pipeline: as configured, else those that read its slot."""
    if config.connect.connectors:
        return list(config.connect.connectors)
    return [name for name in connect.names() if _reads(config, connect.config(name))]


def other_connectors(config: PipelineConfig, connect: ConnectClient) -> dict[str, str]:
    """Say what every other connector of a PostgreSQL reads: a recovery leaves it alone.

    Its slot may be on the server that is recovered all the same, and is gone then.
    """
    own, told = set(own_connectors(config, connect)), {}
    for name in connect.names():
        settings = {**DEFAULTS, **connect.config(name)}
        if name not in own and settings["connector.class"].endswith(CLASS):
            where = f"{settings.get('database.hostname')}/{settings.get('database.dbname')}"
            told[name] = f"slot {settings['slot.name']!r} of {where}"
    return told


def modes(config: PipelineConfig) -> dict[str, str]:
    """Read the settings by which this pipeline's connector writes: the first one's."""
    with ConnectClient(config.connect.url) as connect:
        return next((connect.config(name) for name in own_connectors(config, connect)), {})


def _reads(config: PipelineConfig, told: Mapping[str, str]) -> bool:
    """Whether a connector reads this pipeline's slot, by its settings.

    A slot of that name in another database is another server's. A host is not compared: Connect
    may know the server by another name than we do, and a connector that is overlooked goes on
    during a recovery.
    """
    told = {**DEFAULTS, **told}
    database = told.get("database.dbname", "${}")
    here = database == config.postgres.dbname or "${" in database  # which only the worker resolves
    return told["connector.class"].endswith(CLASS) and told["slot.name"] == config.cdc.slot and here


def debezium_config(
    config: PipelineConfig,
    *,
    tables: Iterable[str],
    snapshot_mode: SnapshotMode = "initial",
    password: str | None = None,
) -> dict[str, str]:
    """Debezium for PostgreSQL, writing Avro in Confluent's wire format.

    `tables` are `schema.table`. `password` is what the connector's configuration shows: give the
    reference that the worker resolves when its secrets lie elsewhere than ours.
    """
    source = config.postgres
    secret = password if password is not None else _password(source)
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "plugin.name": "pgoutput",
        "database.hostname": source.host,
        "database.port": str(source.port),
        "database.user": source.user,
        "database.dbname": source.dbname,
        **({"database.password": secret} if secret is not None else {}),
        "topic.prefix": config.cdc.topic_prefix,
        # a regular expression for each table: an unescaped dot would match any character
        "table.include.list": ",".join(re.escape(table) for table in tables),
        "slot.name": config.cdc.slot,
        "slot.drop.on.stop": "false",
        "publication.name": config.cdc.publication,
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": snapshot_mode,
        # a slot beyond the offset stops the task, where the default would stream on over the gap
        "offset.mismatch.strategy": "trust_offset",
        "heartbeat.interval.ms": "1000",
        # a batch that is not full waits that long; with the default of 500 an event of a busy
        # database is 0.9 s late, at the same CPU
        "poll.interval.ms": "50",
        "decimal.handling.mode": "string",
        "schema.name.adjustment.mode": "avro",
        "tombstones.on.delete": "true",
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": "1",
        **_avro_converter("key", config.registry.url),
        **_avro_converter("value", config.registry.url),
    }


def _password(source: PostgresConfig) -> str | None:
    """Refer to the file where there is one; else it stands in the clear for every REST client.

    The worker needs Kafka's DirectoryConfigProvider under the name `dir`. It takes the file as it
    is: a line feed at the end would be part of the password.
    """
    if (file := source.password_file) is not None:
        return f"${{dir:{file.parent}:{file.name}}}"
    return source.secret()


def _avro_converter(part: str, ccompat_url: str) -> dict[str, str]:
    """Apicurio's converter speaks its own API (v2), beside the Confluent-compatible one."""
    base = ccompat_url.partition("/apis/")[0].rstrip("/")
    registry = f"{part}.converter.apicurio.registry"
    return {
        f"{part}.converter": "io.apicurio.registry.utils.converter.AvroConverter",
        f"{registry}.url": f"{base}/apis/registry/v2",
        f"{registry}.auto-register": "true",
        f"{registry}.find-latest": "true",
        f"{registry}.as-confluent": "true",
        f"{registry}.use-id": "contentId",
        f"{registry}.headers.enabled": "false",
    }
