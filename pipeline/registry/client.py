"""A schema registry over its Confluent-compatible API (Apicurio: /apis/ccompat/v7)."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import quote

import httpx

from pipeline.errors import ConfigError, ServerError
from pipeline.rest import NOT_FOUND, Rest

NO_SUBJECT_CONFIG = 40408  # "Subject ... does not have subject-level compatibility configured"


class SchemaMissing(ServerError):
    """The registry answers 404: no such subject, version, id or subject-level setting."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class RegisteredSchema:
    """One version of a subject. Data carries the id, so an id must keep its meaning for ever.

    `id` and `schema` are None where the registry lists a deleted version but gives it no more.
    """

    subject: str
    version: int
    id: int | None
    schema: str | None
    type: str
    references: tuple[dict[str, Any], ...] = ()
    deleted: bool = False


@dataclass(frozen=True)
class Inventory:
    """Everything that a restore has to bring back, and to be compared with afterwards."""

    mode: str
    compatibility: str
    subject_compatibility: dict[str, str]
    schemas: tuple[RegisteredSchema, ...]

    def facts(self) -> dict[str, Any]:
        """JSON-able, for a manifest."""
        return asdict(self)


class RegistryClient(Rest):
    """One registry. `deleted` includes what was soft-deleted: data may still need it."""

    def subjects(self, *, deleted: bool = False) -> list[str]:
        return sorted(self._call("GET", f"/subjects?deleted={_word(deleted)}"))

    def versions(self, subject: str, *, deleted: bool = False) -> list[int]:
        return sorted(self._call("GET", f"{_versions(subject)}?deleted={_word(deleted)}"))

    def version(self, subject: str, version: int, *, deleted: bool = False) -> RegisteredSchema:
        answer = self._call("GET", f"{_versions(subject)}/{version}?deleted={_word(deleted)}")
        return RegisteredSchema(
            subject=answer["subject"],
            version=answer["version"],
            id=answer["id"],
            schema=answer["schema"],
            type=answer.get("schemaType") or "AVRO",  # Avro is left out of an answer
            references=tuple(answer.get("references") or ()),
        )

    def schema_by_id(self, schema_id: int) -> str:
        """The schema that a record with this id was written with; SchemaMissing when unknown."""
        if not self.url:
            raise ConfigError(f"a record names schema {schema_id} of a registry: set registry.url")
        return str(self._call("GET", f"/schemas/ids/{schema_id}")["schema"])

    def compatibility(self, subject: str | None = None) -> str | None:
        """Level of a subject, None when it follows the global one; without a subject the global.

        Apicurio 3.3 answers NONE for a subject that has no level of its own.
        """
        if subject is None:
            return _level(self._call("GET", "/config"))
        try:
            return _level(self._call("GET", f"/config/{quote(subject, safe='')}"))
        except SchemaMissing as missing:
            if missing.code in {NO_SUBJECT_CONFIG, NOT_FOUND}:
                return None
            raise

    def set_compatibility(self, level: str, subject: str | None = None) -> None:
        path = f"/config/{quote(subject, safe='')}" if subject else "/config"
        self._call("PUT", path, {"compatibility": level})

    def mode(self) -> str:
        return str(self._call("GET", "/mode")["mode"])

    def register(self, subject: str, schema: str, kind: str = "AVRO") -> int:
        """Register and return the id. Which id it gets is the registry's choice: compare it."""
        body = {"schema": schema, "schemaType": kind}
        return int(self._call("POST", _versions(subject), body, repeatable=True)["id"])

    def delete(self, subject: str, *, permanent: bool = False) -> list[int]:
        """Delete every version; `permanent` needs a soft delete before it."""
        path = f"/subjects/{quote(subject, safe='')}?permanent={_word(permanent)}"
        return sorted(self._call("DELETE", path))

    def inventory(self) -> Inventory:
        """Read every subject, version and setting, soft-deleted ones marked."""
        living = set(self.subjects())
        subjects = self.subjects(deleted=True)
        levels = {s: self.compatibility(s) for s in subjects}
        return Inventory(
            mode=self.mode(),
            compatibility=self.compatibility() or "",
            subject_compatibility={s: level for s, level in levels.items() if level},
            schemas=tuple(s for subject in subjects for s in self._schemas(subject, living)),
        )

    def _schemas(self, subject: str, living: set[str]) -> Iterable[RegisteredSchema]:
        current = self.versions(subject) if subject in living else []
        for number in self.versions(subject, deleted=True):
            if number in current:
                yield self.version(subject, number)
                continue
            try:
                found = self.version(subject, number, deleted=True)
            except SchemaMissing:  # Apicurio 3.3 lists it and answers 404
                found = RegisteredSchema(subject, number, None, None, "")
            yield replace(found, deleted=True)

    def missing_ids(self, ids: Iterable[int]) -> list[int]:
        """Which of these ids the registry cannot answer: their records cannot be read."""
        return [schema_id for schema_id in sorted(set(ids)) if not self._answers(schema_id)]

    def _answers(self, schema_id: int) -> bool:
        try:
            self.schema_by_id(schema_id)
        except SchemaMissing:
            return False
        return True

    def _refused(self, told: str, answer: httpx.Response) -> ServerError:
        if answer.status_code == NOT_FOUND:
            return SchemaMissing(told, _code(answer))
        return ServerError(told)


def _word(flag: bool) -> str:  # noqa: FBT001 - a flag is all there is
    return str(flag).lower()


def _versions(subject: str) -> str:
    return f"/subjects/{quote(subject, safe='')}/versions"


def _level(answer: dict[str, Any]) -> str:
    return str(answer.get("compatibilityLevel") or answer["compatibility"])


def _code(answer: httpx.Response) -> int:
    try:
        return int(answer.json()["error_code"])
    except (ValueError, KeyError, TypeError):
        return answer.status_code
