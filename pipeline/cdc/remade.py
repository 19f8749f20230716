"""Connectors that are gone, made again from a set: STOPPED, so that nothing moves before a look.

The offsets of a connector outlive it (Connect keeps them under its name), so one that is made again
would go on at once, over whatever gap there is.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.state.connect import Connector
from pipeline.cdc.state.reading import Reading
from pipeline.cdc.state.settings import MASK
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError


def missing(config: PipelineConfig, now: Reading, known: Reading | None) -> list[Connector]:
    """Find connectors of ours that the set has and Connect has not."""
    there = {each.name for each in now.connectors}
    then = (*known.connectors, *known.absent) if known else ()
    return [each for each in then if each.own and each.name not in there and _ours(config, each)]


def unnamed(
    config: PipelineConfig, now: Reading, known: Reading | None, secrets: Mapping[str, str]
) -> Iterator[str]:
    """Say which connector cannot be made again: no set has it, or a masked value is not given."""
    back = missing(config, now, known)
    there = {each.name for each in (*now.connectors, *back)}
    for name in set(config.connect.connectors) - there:
        yield f"connector {name!r} is in neither Connect nor the set"
    if not any(each.own for each in (*now.connectors, *back)):
        yield f"no connector reads slot {config.cdc.slot!r}, and none in the set does"
    for each in back:
        for setting in sorted(each.digests.keys() - secrets.keys()):
            yield f"connector {each.name!r} is gone, and the set has {setting} masked"
    for setting, path in secrets.items():
        if not Path(path).is_file():
            yield f"there is no file {path} with {setting}"


def make(client: ConnectClient, connector: Connector, secrets: Mapping[str, str]) -> None:
    """Create a connector STOPPED, with its secrets from files; one that is there is left alone."""
    if connector.name in client.names():
        return
    config = dict(connector.config)
    for setting in connector.digests:
        config[setting] = _secret(setting, secrets)
    if masked := sorted(setting for setting, value in config.items() if MASK in value):
        raise ConfigError(f"connector {connector.name!r}: {', '.join(masked)} is masked in the set")
    client.create(connector.name, config, stopped=True)
    client.wait_stopped(connector.name)


def _secret(setting: str, secrets: Mapping[str, str]) -> str:
    if (path := secrets.get(setting)) is None:
        raise ConfigError(f"{setting} is masked in the set: give it by --secret {setting}=FILE")
    return Path(path).read_text().rstrip("\n")


def _ours(config: PipelineConfig, connector: Connector) -> bool:
    named = config.connect.connectors
    return connector.name in named if named else connector.slot == config.cdc.slot
