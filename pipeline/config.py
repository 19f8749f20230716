"""One typed configuration: pipeline.toml, then the environment; an unknown key is an error.

Environment variables are `PIPELINE_` + section + `__` + key, for example
`PIPELINE_POSTGRES__PASSWORD`. Secrets come from there or from files, never from arguments.
"""

import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pipeline.errors import ConfigError


class Section(BaseModel):
    """A table of pipeline.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _read(key: str, file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as error:
        raise ConfigError(f"{key}: {error}") from error


class PostgresConfig(Section):
    """The source database. `data` is needed where this machine holds its folder."""

    host: str = "127.0.0.1"
    port: int = 5432
    user: str = "postgres"
    dbname: str = "postgres"
    password: SecretStr | None = None
    password_file: Path | None = None
    bin: Path | None = Field(None, description="folder of PostgreSQL's programs; else PATH")
    data: Path | None = Field(None, description="data folder, where it is on this machine")
    run_as: str | None = Field(None, description="owner of the server, when we are root")
    connect_timeout: timedelta = timedelta(seconds=5)
    replay_libraries: tuple[str, ...] = Field(
        (),
        description="libraries that replay needs, for WAL records of an extension; no other is "
        "preloaded into a server that is started before a recovery opens",
    )

    def secret(self) -> str | None:
        """The password, read at the moment of use so that a rotated file is followed."""
        if self.password_file is not None:
            return _read("postgres.password_file", self.password_file)
        return self.password.get_secret_value() if self.password else None

    def conninfo(self, **changes: str | int) -> dict[str, Any]:
        """Keywords for psycopg.connect."""
        keywords: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "dbname": self.dbname,
            "connect_timeout": max(1, round(self.connect_timeout.total_seconds())),
        }
        if secret := self.secret():
            keywords["password"] = secret
        return keywords | changes


class KafkaConfig(Section):
    """The brokers. `client` passes through to every client, as librdkafka spells its settings."""

    bootstrap_servers: str = "127.0.0.1:9092"
    client: dict[str, str] = Field({}, repr=False)  # it may hold sasl.password
    reread_bytes: int = Field(
        256 << 20, ge=1 << 20, description="of archived topics, compared with them by one `check`"
    )

    def librdkafka(self, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Settings of a client. What fails is told by us: librdkafka's lines need a log_level."""
        servers = {"bootstrap.servers": self.bootstrap_servers}
        return {"log_level": 2, **self.client, **servers, **(own or {})}


class RestConfig(Section):
    """A service that is spoken to over HTTP. A login in its URL is kept where it is not shown."""

    url: str
    user: str | None = Field(None, description="for basic authentication; or in the URL")
    password: SecretStr | None = Field(None, description="better in the environment or a file")
    password_file: Path | None = Field(None, description="read at each use; before password")
    token_file: Path | None = Field(None, description="bearer token, read at each use; before user")
    ca_file: Path | None = Field(
        None, description="authorities (PEM) to trust instead of the public ones"
    )
    client_cert: Path | None = Field(None, description="certificate (PEM) that it asks of clients")
    client_key: Path | None = Field(None, description="its key, where the certificate has none")
    timeout: timedelta = Field(
        timedelta(seconds=30), gt=timedelta(0), description="of each request"
    )

    @model_validator(mode="before")
    @classmethod
    def _login_apart(cls, given: Any) -> Any:  # noqa: ANN401 - before it is validated
        if not isinstance(given, Mapping) or "url" not in given:
            return given
        parts = urlsplit(str(given["url"]))
        login, at, host = parts.netloc.rpartition("@")
        if not at:
            return given
        user, _, password = login.partition(":")
        apart = {"user": unquote(user), "password": unquote(password)}
        return apart | dict(given) | {"url": parts._replace(netloc=host).geturl()}

    def secret(self) -> str | None:
        """The password, read at the moment of use."""
        if self.password_file is not None:
            return _read("password_file", self.password_file)
        return self.password.get_secret_value() if self.password else None

    def token(self) -> str | None:
        """The bearer token, read at the moment of use."""
        return _read("token_file", self.token_file) if self.token_file else None


class ConnectConfig(RestConfig):
    """The Kafka Connect workers that run Debezium."""

    url: str = "http://127.0.0.1:8083"
    connectors: tuple[str, ...] = ()
    internal_topics: tuple[str, ...] = Field(
        ("connect-configs", "connect-offsets", "connect-status"),
        description="`config.storage.topic`, `offset.storage.topic` and `status.storage.topic` of "
        "the workers; REST does not tell them",
    )


class RegistryConfig(RestConfig):
    """The schema registry, by the base of its Confluent-compatible API."""

    url: str = "http://127.0.0.1:8081"
    storage_topic: str | None = Field(
        None,
        description="where it keeps its state in Kafka; default: `kafkasql-journal` or `_schemas`, "
        "as there is",
    )

    @property
    def configured(self) -> bool:
        """Whether somebody said where it is: only then is it backed up beside what needs it."""
        return bool(self.url) and "url" in self.model_fields_set


class CdcConfig(Section):
    """What the source database must have so that its changes reach Kafka."""

    slot: str = "debezium"
    publication: str = "dbz_publication"
    topic_prefix: str = "shop"
    narrowed: tuple[str, ...] = ()
    catalogue_guard: str | None = Field(
        None,
        description="physical slot, kept by `backup base`, that holds dead rows of the catalogues "
        "from the base backup before the newest on, and no WAL: changes of a lost slot can then "
        "be decoded again whatever VACUUM did; default: none",
    )


class RepositoryConfig(Section):
    """Where backup sets and the WAL archive are kept."""

    path: Path
    receiver_slot: str = "pipeline_receiver"
    wal_command: str | None = Field(
        None, description="how the server's owner calls pipeline-wal; default: this installation"
    )


class ScratchConfig(Section):
    """Room on this machine for trial restores."""

    path: Path
    address: str | None = Field(
        None,
        description="of this machine, as workers of Kafka Connect reach it: a side server listens "
        "there for `recover cdc`; default: only where they are on this machine",
    )


DAY = timedelta(days=1)


class PlanConfig(Section):
    """How long `pipeline retain` keeps what was backed up, at least one day."""

    base: timedelta = Field(7 * DAY, ge=DAY, description="base backups")
    logical: timedelta = Field(14 * DAY, ge=DAY, description="logical backups")
    slots: timedelta = Field(14 * DAY, ge=DAY, description="slots, publications, connectors")
    topics: timedelta = Field(30 * DAY, ge=DAY, description="archives of topics, taken weekly")
    offsets: timedelta = Field(7 * DAY, ge=DAY, description="committed offsets of consumer groups")
    schemas: timedelta = Field(
        30 * DAY, ge=DAY, description="the schema registry, as long as the topics that need it"
    )
    all: timedelta = Field(
        7 * DAY, ge=DAY, description="sets of sets by `backup all`; their members stay as long"
    )
    evidence: timedelta | None = Field(
        None, ge=DAY, description="what recoveries salvaged, the only copy; default: for ever"
    )
    wal: timedelta = Field(
        7 * DAY, ge=DAY, description="the recovery window: the base backup before it is kept too"
    )


class KubernetesConfig(Section):
    """Where the checks of CronJobs look; without it they are not run."""

    namespace: str = Field("pipeline-backup", description="where the manifests of deploy/ are")
    kubeconfig: Path | None = Field(None, description="default: KUBECONFIG, else ~/.kube/config")
    context: str | None = Field(None, description="of the kubeconfig; default: its current one")
    objects: Path | None = Field(
        None, description="what `kubectl get … -o json` printed, where the cluster is out of reach"
    )


class ChecksConfig(Section):
    """What `pytest checks/` is to take for normal."""

    may_shrink: tuple[str, ...] = Field(
        (), description="tables that lose most of their rows on purpose, as schema.table"
    )


class Objective(Section):
    """What the business asked for; a drill measures the actual."""

    rto: timedelta
    rpo: timedelta = timedelta(0)


class Objectives(Section):
    """Defaults are the user's own RTOs and RPOs (docs/procedures.md)."""

    point_in_time: Objective = Objective(rto=timedelta(minutes=30), rpo=timedelta(minutes=5))
    one_table: Objective = Objective(rto=timedelta(minutes=15), rpo=timedelta(minutes=5))
    topic_replay: Objective = Objective(rto=timedelta(minutes=20))
    slots: Objective = Objective(rto=timedelta(minutes=10))
    full_pipeline: Objective = Objective(rto=timedelta(minutes=60), rpo=timedelta(minutes=5))
    registry: Objective = Objective(rto=timedelta(minutes=10))


class PipelineConfig(BaseSettings):
    """Everything the package needs to know; every command accepts the same file."""

    model_config = SettingsConfigDict(
        env_prefix="PIPELINE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    postgres: PostgresConfig = PostgresConfig()
    kafka: KafkaConfig = KafkaConfig()
    connect: ConnectConfig = ConnectConfig()
    registry: RegistryConfig = RegistryConfig()
    cdc: CdcConfig = CdcConfig()
    repository: RepositoryConfig
    scratch: ScratchConfig | None = None
    plan: PlanConfig = PlanConfig()
    checks: ChecksConfig = ChecksConfig()
    kubernetes: KubernetesConfig | None = None
    objectives: Objectives = Objectives()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings passes it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no .env files here
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - password_file instead
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which arrives as keywords."""
        return env_settings, init_settings


def load(path: Path) -> PipelineConfig:
    """Read pipeline.toml and the environment. Raises ConfigError naming every bad key."""
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; docs/quickstart.md has one"
        ) from (error)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    try:
        return PipelineConfig(**tables)
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'top level'}: {item['msg']}"
            for item in error.errors()
        )
        raise ConfigError(f"{path}: {told}") from None  # the original would print the values
