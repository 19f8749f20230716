"""Apicurio's own API: what its compatible one does not tell, and an import that keeps ids.

Its export is one consistent file of everything: texts, also of what was deleted, versions, rules,
references, branches. What is not in it: settings that were changed while it ran, the mode of the
compatible API among them (`apicurio.ccompat.mode`).
"""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import httpx

from pipeline.config import RestConfig
from pipeline.errors import ServerError
from pipeline.registry.schemas import Inventory, RegisteredSchema
from pipeline.rest import PATIENCE, Rest, message

BASE = "/apis/registry/v3"
COMPATIBLE = "/apis/ccompat/"
JOURNAL = "kafkasql-journal"
MODE, LEGACY = "apicurio.ccompat.mode", "apicurio.ccompat.legacy-id-mode.enabled"
LACKS = ("settings are put back one by one: an export has none",)
Json = Mapping[str, Any]


def beside(place: RestConfig, patience: timedelta = PATIENCE) -> "Apicurio | None":
    """Open its own API, where the compatible one is Apicurio's by its address."""
    host, found, _ = place.url.partition(COMPATIBLE)
    return Apicurio(place.model_copy(update={"url": host + BASE}), patience) if found else None


class Apicurio(Rest):
    """The registry at its own API, version 3."""

    def system(self) -> tuple[str, str]:
        """Name and version, as it tells them."""
        told = self._call("GET", "/system/info")
        return str(told["name"]), str(told["version"])

    def settings(self) -> dict[str, str]:
        """Settings that can be changed while it runs, with their values."""
        found = self._call("GET", "/admin/config/properties")
        return {one["name"]: str(one["value"]) for one in found}

    def set(self, name: str, value: str) -> None:
        """Change a setting while it runs."""
        self._call("PUT", f"/admin/config/properties/{name}", {"value": value})

    def versions(self) -> int:
        """Count the versions of all artifacts, also those that were deleted but not for good."""
        return int(self._call("GET", "/search/versions?limit=1")["count"])

    def export(self) -> bytes:
        """Everything as its zip file. Raises ServerError where that is not whole.

        An error in the middle of an export gives a file that looks whole (apicurio-registry#9182).
        """
        answer = self.ask("GET", "/admin/export")
        if answer.is_error:
            raise ServerError(f"{self.url}: no export: {message(answer)}")
        told, found = self.versions(), len(list(_entities(answer.content, "ArtifactVersion")))
        if told != found:
            raise ServerError(f"{self.url}: the export has {found} versions, there are {told}")
        return answer.content

    def bring_in(self, export: bytes, *, merge: bool = False) -> None:
        """Import an export, ids kept. Raises ServerError where it is not empty, unless `merge`."""
        answer = self.ask(
            "POST",
            f"/admin/import?requireEmptyRegistry={str(not merge).lower()}",
            content=export,
            headers={
                "Content-Type": "application/zip",
                "X-Registry-Preserve-GlobalId": "true",
                "X-Registry-Preserve-ContentId": "true",
            },
        )
        if answer.is_error:
            raise ServerError(f"{self.url}: import: HTTP {answer.status_code}: {_detail(answer)}")


def inventory(
    export: bytes, system: tuple[str, str], settings: Mapping[str, str], mode: str
) -> Inventory:
    """Read an export as what a client of the compatible API would be told; `mode` is that API's."""
    legacy = settings.get(LEGACY) == "true"
    texts = {each["contentId"]: (each, data) for each, data in _contents(export)}
    kinds = {_named(each): each["artifactType"] for each in _entities(export, "Artifact")}
    schemas, highest = list[RegisteredSchema](), 0
    for each in _entities(export, "ArtifactVersion"):
        content, data = texts[each["contentId"]]
        references = json.loads(content["serializedReferences"] or "[]")
        schemas.append(
            RegisteredSchema(
                subject=_named(each),
                version=each["versionOrder"],
                id=each["globalId" if legacy else "contentId"],
                schema=data.decode(),
                type=kinds[_named(each)],
                references=tuple(_reference(one) for one in references),
                deleted=each["state"] == "DISABLED",
                global_id=each["globalId"],
            )
        )
        highest = max(highest, each["globalId"] if legacy else 0)
    rules: dict[str, dict[str, str]] = {}
    for each in _entities(export, "ArtifactRule"):
        rules.setdefault(_named(each), {})[each["type"]] = each["configuration"]
    everywhere = {
        each["ruleType"]: each["configuration"] for each in _entities(export, "GlobalRule")
    }
    level = "COMPATIBILITY"
    return Inventory(
        mode=mode,
        compatibility=everywhere.get(level, "NONE"),
        subject_compatibility={n: each[level] for n, each in rules.items() if level in each},
        schemas=tuple(sorted(schemas, key=lambda one: one.named)),
        registry=system[0],
        version=system[1],
        ids="globalId" if legacy else "contentId",
        contexts=(":.:",),
        rules=rules | ({"": everywhere} if everywhere else {}),
        settings={name: value for name, value in settings.items() if name != MODE},
        highest=highest if legacy else max(texts, default=0),
        lacks=LACKS,
    )


def _named(each: Json) -> str:
    """Name a subject as the compatible API does: artifacts of other groups are not in it."""
    group = each.get("groupId")
    return each["artifactId"] if group in {None, "default"} else f"{group}/{each['artifactId']}"


def _reference(one: Json) -> dict[str, Any]:
    return {"name": one["name"], "subject": _named(one), "version": int(one["version"])}


def _entities(export: bytes, kind: str) -> Iterator[dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(export)) as held:
        for name in held.namelist():
            if name.endswith(f".{kind}.json"):
                yield json.loads(held.read(name))


def _contents(export: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    with zipfile.ZipFile(io.BytesIO(export)) as held:
        for name in held.namelist():
            if name.endswith(".Content.json"):
                yield json.loads(held.read(name)), held.read(name.removesuffix("json") + "data")


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return message(answer)
