"""A pipeline whose converters write JSON has no schema registry, and is recovered without one."""

from typing import cast

import pytest

from pipeline.config import PipelineConfig, RegistryConfig, RepositoryConfig
from pipeline.errors import ConfigError
from pipeline.registry.client import RegistryClient
from pipeline.runbooks import postgres_preconditions
from pipeline.runbooks.plan import Plan


@pytest.mark.parametrize(("url", "asked"), [("", 0), ("http://127.0.0.1:8081", 1)])
def test_only_a_registry_that_is_there_must_answer(url: str, asked: int) -> None:
    config = PipelineConfig(
        registry=RegistryConfig(url=url), repository=RepositoryConfig(path="unused")
    )
    listed = postgres_preconditions.listed(config, cast("Plan", None), cdc=True)
    assert [one.name for one in listed].count("registry") == asked


def test_a_record_that_names_a_schema_after_all_is_one_error() -> None:
    with (
        RegistryClient(RegistryConfig(url="")) as registry,
        pytest.raises(ConfigError, match=r"a record names schema 7 .*: set registry\.url"),
    ):
        registry.schema_by_id(7)
