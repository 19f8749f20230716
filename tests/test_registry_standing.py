"""Its storage topic is made anew only beneath a stopped registry: a refusal is an answer."""

import pytest

from fixtures.stand_in_registry import standing_in
from pipeline.cdc import registry_probe
from pipeline.config import PipelineConfig, RegistryConfig


def _at(url: str) -> PipelineConfig:
    return PipelineConfig.model_construct(registry=RegistryConfig(url=url))


@pytest.mark.parametrize("status", [200, 401, 403, 404, 500])
def test_what_answers_stands_whatever_it_answers(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing_in() as registry:
        monkeypatch.setattr(registry, "answer", lambda *_: (status, []))
        assert registry_probe.standing(_at(registry.url)) == f"HTTP {status}"


def test_what_a_proxy_says_of_a_stopped_one_does_not_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with standing_in() as registry:
        monkeypatch.setattr(registry, "answer", lambda *_: (503, []))
        assert registry_probe.standing(_at(registry.url)) is None


def test_where_nobody_listens_nothing_stands() -> None:
    with standing_in() as registry:
        config = _at(registry.url)
    assert registry_probe.standing(config) is None
