"""The configuration as pods have it, which is another one than that of who looks."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ConfigDict, ValidationError, create_model

from checks.check import CouldNotLook
from checks.kubernetes_objects import Namespace
from pipeline.config import KafkaConfig, PipelineConfig, PostgresConfig, RestConfig

CONFIGURED = "PIPELINE_CONFIG"


def text_of(namespace: Namespace, pod: dict[str, Any]) -> str | None:
    """Give the text of the file that `pipeline` reads in a pod."""
    one = pod["containers"][0]
    named = {each["name"]: each.get("value", "") for each in one.get("env", [])}
    file = Path(named.get(CONFIGURED, ""))
    for mount in one.get("volumeMounts", []):
        if str(file.parent) == mount["mountPath"]:
            for volume in pod["volumes"]:
                if volume["name"] == mount["name"] and "configMap" in volume:
                    found = namespace.find("ConfigMap", volume["configMap"]["name"])
                    text: str | None = (found or {}).get("data", {}).get(file.name)
                    return text
    return None


def sections(tables: dict[str, Any]) -> dict[str, Any]:
    """Read each table as `pipeline` does; not its environment, for that is another one here."""
    fields: dict[str, Any] = {
        name: (each.annotation, each) for name, each in PipelineConfig.model_fields.items()
    }
    model = create_model("pipeline.toml", __config__=ConfigDict(extra="forbid"), **fields)
    return dict(model.model_validate(tables))


def addresses(namespace: Namespace) -> Iterator[tuple[str, int]]:
    """Give host and port of each server that pods are told of."""
    texts = (text_of(namespace, pod) for _, pod in namespace.templates())
    try:
        told = sections(tomllib.loads(next(filter(None, texts), "")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        advice = "kubernetes.config-agrees says what is wrong with it"
        raise CouldNotLook("pods have no pipeline.toml that can be read", advice) from error
    postgres, kafka = told["postgres"], told["kafka"]
    assert isinstance(postgres, PostgresConfig)
    assert isinstance(kafka, KafkaConfig)
    yield postgres.host, postgres.port
    for each in kafka.bootstrap_servers.split(","):
        host, _, port = each.strip().rpartition(":")
        yield host, int(port)
    for name in ("connect", "registry"):
        service = told[name]
        assert isinstance(service, RestConfig)
        if service.url:
            parts = urlsplit(service.url)
            yield parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80)
