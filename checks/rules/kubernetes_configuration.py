"""Whether what pods are configured with is there, is meant, and keeps secrets to itself."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from pydantic import ValidationError

from checks.check import Observation, check
from checks.kubernetes_config import CONFIGURED, sections, text_of
from checks.kubernetes_objects import Namespace, containers, name_of
from fixtures.faults.manifests import edited
from fixtures.scratch import Damage, Scratch
from pipeline.config import PostgresConfig, Section

SECRET = re.compile(r"passw|secret(?!_?name)|token$|api_?key|private_?key", re.IGNORECASE)
FILED = re.compile(r"file|location|path", re.IGNORECASE)
AGREES = ("postgres", "cdc", "plan")
"""Sections that say the same of a pipeline wherever it is looked at from."""
ELSEWHERE = {("postgres", name) for name in set(PostgresConfig.model_fields) - {"dbname"}}
"""What is another one from inside of a cluster."""


@check(
    "kubernetes.secrets-resolve",
    on=Namespace,
    advice="Make the Secret as docs/kubernetes.md says, with the key that is named. A secret that "
    "stood in a manifest or a ConfigMap is known to all who may read those: change it.",
)
def secrets_resolve(namespace: Namespace) -> Iterator[Observation]:
    """Every Secret that pods name is there with its key, and nothing secret stands elsewhere."""
    for where, pod in namespace.templates():
        told = [*_unresolved(namespace, pod), *_in_the_open(pod)]
        yield Observation(where, "; ".join(told) or None)
    for one in namespace.all("ConfigMap"):
        found = [name for text in one.get("data", {}).values() for name in _secret_lines(text)]
        open_to_all = f"{', '.join(found)} holds a secret" if found else None
        yield Observation(f"ConfigMap {name_of(one)}", open_to_all)


def _unresolved(namespace: Namespace, pod: dict[str, Any]) -> Iterator[str]:
    needed = _needed(namespace, pod)
    for volume in pod.get("volumes", []):
        if (told := volume.get("secret")) is None:
            continue
        secret = namespace.find("Secret", told["secretName"])
        if secret is None:
            yield f"there is no Secret {told['secretName']}"
            continue
        if told.get("defaultMode", 0o644) & 0o007:
            yield f"files of {told['secretName']} are readable for all in the pod"
        keys = [item["key"] for item in told.get("items", [])] or needed.get(volume["name"], [])
        yield from (
            f"Secret {told['secretName']} has no key {key}"
            for key in keys
            if key not in (secret.get("data") or {})
        )


def _needed(namespace: Namespace, pod: dict[str, Any]) -> dict[str, list[str]]:
    """Give the files that the configuration reads, by the volume that they lie on."""
    told = text_of(namespace, pod)
    files = [Path(value) for value in _files(tomllib.loads(told))] if told else []
    found: dict[str, list[str]] = {}
    for one in containers(pod):
        for mount in one.get("volumeMounts", []):
            inside = [str(file.name) for file in files if str(file.parent) == mount["mountPath"]]
            found.setdefault(mount["name"], []).extend(inside)
    return {name: sorted(set(keys)) for name, keys in found.items()}


def _files(tables: dict[str, Any]) -> Iterator[str]:
    for name, value in tables.items():
        if isinstance(value, dict):
            yield from _files(value)
        elif isinstance(value, str) and FILED.search(name) and value.startswith("/run/secrets/"):
            yield value


def _in_the_open(pod: dict[str, Any]) -> Iterator[str]:
    for one in containers(pod):
        for each in one.get("env", []):
            if SECRET.search(each["name"]) and not FILED.search(each["name"]) and "value" in each:
                yield f"{one['name']}: {each['name']} holds a secret"
            elif "secretKeyRef" in each.get("valueFrom", {}):
                yield f"{one['name']}: {each['name']} is in the environment, not in a file"


def _secret_lines(text: str) -> Iterator[str]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    yield from _secret_keys(tables)


def _secret_keys(tables: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in tables.items():
        if isinstance(value, dict):
            yield from _secret_keys(value, f"{above}{name}.")
        elif SECRET.search(name) and not FILED.search(name):
            yield f"{above}{name}"


@check(
    "kubernetes.config-agrees",
    on=Namespace,
    advice="Change pipeline.toml of the overlay, apply it, and restart the receiver: `kubectl "
    "rollout restart statefulset/receiver`. Jobs read it when they start.",
)
def config_agrees(namespace: Namespace) -> Iterator[Observation]:
    """Pods read a pipeline.toml that is one, of this pipeline, with its repository on a volume."""
    for where, pod in namespace.templates():
        if (text := text_of(namespace, pod)) is None:
            yield Observation(where, f"no ConfigMap holds the file that {CONFIGURED} names")
        else:
            yield Observation(where, "; ".join(_disagreements(namespace, pod, text)) or None)


def _disagreements(namespace: Namespace, pod: dict[str, Any], text: str) -> Iterator[str]:
    try:
        written = sections(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        yield f"it is not TOML: {error}"
        return
    except ValidationError as error:
        for each in error.errors():
            yield f"{error.title}.{'.'.join(map(str, each['loc']))}: {each['msg']}"
        return
    for section in AGREES:
        ours: Section = getattr(namespace.config, section)
        yield from (
            f"{section}.{name} is {there}, here {here}"
            for (name, there), (_, here) in zip(written[section], ours, strict=True)
            if there != here and (section, name) not in ELSEWHERE
        )
    kept = str(written["repository"].path)
    claims = {each["name"] for each in pod["volumes"] if "persistentVolumeClaim" in each}
    mounts = [
        each["mountPath"] for each in pod["containers"][0]["volumeMounts"] if each["name"] in claims
    ]
    if not any(kept.startswith(each) for each in mounts):
        yield f"repository.path {kept} is on no claim: it is mounted at {', '.join(mounts) or '-'}"


Cluster = Scratch[Namespace]
BASE = "CronJob backup-base"


def _toml(scratch: Cluster, old: str, new: str) -> None:
    with edited(scratch) as objects:
        data = objects.one("ConfigMap", "pipeline")["data"]
        assert old in data["pipeline.toml"], old
        data["pipeline.toml"] = data["pipeline.toml"].replace(old, new)


@secrets_resolve.detects
def key_renamed(scratch: Cluster, _rng: Random) -> Damage:
    """The Secret of an operator has its own names for keys."""
    with edited(scratch) as objects:
        objects.one("Secret", "pipeline-postgres")["data"] = {"PASSWORD": "eA=="}
    return Damage(BASE, "its key has another name", says="has no key password")


@secrets_resolve.detects
def secret_missing(scratch: Cluster, _rng: Random) -> Damage:
    """Applied before the Secret was made: pods wait for it, and no job fails."""
    with edited(scratch) as objects:
        objects.remove("Secret", "pipeline-postgres")
    return Damage(BASE, "its Secret is not there", says="there is no Secret")


@secrets_resolve.detects
def password_in_the_environment(scratch: Cluster, _rng: Random) -> Damage:
    """`kubectl describe` shows it to everybody who may look at pods."""
    with edited(scratch) as objects:
        told = {"name": "PIPELINE_POSTGRES__PASSWORD", "value": "hunter2"}
        objects.container("backup-base")["env"].append(told)
    return Damage(BASE, "a password is in its manifest", says="holds a secret")


@secrets_resolve.detects
def password_in_the_configmap(scratch: Cluster, _rng: Random) -> Damage:
    """Where all other settings are, too."""
    _toml(scratch, 'dbname = "shop"', 'dbname = "shop"\npassword = "hunter2"')
    return Damage("ConfigMap pipeline", "it holds a password", says="postgres.password")


@secrets_resolve.detects
def secret_open_to_all(scratch: Cluster, _rng: Random) -> Damage:
    """The default mode of files of a Secret."""
    with edited(scratch) as objects:
        for volume in objects.pod("backup-base")["volumes"]:
            volume.get("secret", {}).pop("defaultMode", None)
    return Damage(BASE, "everybody in the pod may read it", says="readable for all")


@config_agrees.detects
def another_database(scratch: Cluster, _rng: Random) -> Damage:
    """The overlay of another pipeline."""
    _toml(scratch, 'dbname = "shop"', 'dbname = "billing"')
    return Damage(BASE, "it backs up another database", says="billing")


@config_agrees.detects
def unknown_key(scratch: Cluster, _rng: Random) -> Damage:
    """A misspelt key, at which every job ends."""
    _toml(scratch, 'dbname = "shop"', 'db = "shop"')
    return Damage(BASE, "it has a key that is none", says="postgres.db")


@config_agrees.detects
def not_toml_any_more(scratch: Cluster, _rng: Random) -> Damage:
    """A patch that met half a line."""
    _toml(scratch, 'dbname = "shop"', 'dbname = "shop')
    return Damage(BASE, "nobody can read it", says="not TOML")


@config_agrees.detects
def repository_beside_the_volume(scratch: Cluster, _rng: Random) -> Damage:
    """A path below which nothing is mounted: the root is read-only, or gone with the pod."""
    _toml(scratch, 'path = "/backup/repository"', 'path = "/var/lib/repository"')
    return Damage(BASE, "its repository is on no volume", says="on no claim")


@config_agrees.detects
def another_plan(scratch: Cluster, _rng: Random) -> Damage:
    """Retention was changed on one side only."""
    _toml(scratch, "[repository]", '[plan]\nbase = "P1D"\n\n[repository]')
    return Damage(BASE, "it keeps backups for a day", says="plan.base")
