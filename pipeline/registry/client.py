"""A schema registry over its Confluent-compatible API (Apicurio: /apis/ccompat/v7)."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx

from pipeline.errors import ConfigError, ServerError
from pipeline.registry import apicurio
from pipeline.registry.schemas import AVRO, READWRITE, Inventory, RegisteredSchema
from pipeline.rest import NOT_FOUND, Rest

LACKS = (
    "ids of what was deleted for good",
    "which schema was registered when",
    "rules and metadata of data contracts",
)
"""What Confluent's interface does not tell."""
NO_SUBJECT_CONFIG = 40408  # "Subject ... does not have subject-level compatibility configured"


class SchemaMissing(ServerError):
    """The registry answers 404: no such subject, version, id or subject-level setting."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class RegistryClient(Rest):
    """One registry. `deleted` includes what was soft-deleted: data may still need it."""

    def subjects(self, *, deleted: bool = False) -> list[str]:
        return sorted(self._list_of(f"/subjects?deleted={_word(deleted)}"))

    def versions(self, subject: str, *, deleted: bool = False) -> list[int]:
        return sorted(self._list_of(f"{_versions(subject)}?deleted={_word(deleted)}"))

    def _list_of(self, path: str) -> list[Any]:
        """Ask for a list. Whatever else answers as JSON, as a gateway does, is no registry."""
        found = self._call("GET", path)
        if not isinstance(found, list):
            told = f"expected a list, found {str(found)[:80]}"
            raise ServerError(f"GET {self.url}{path}: {told}: is this the registry's address?")
        return found

    def version(self, subject: str, version: int, *, deleted: bool = False) -> RegisteredSchema:
        answer = self._call("GET", f"{_versions(subject)}/{version}?deleted={_word(deleted)}")
        return RegisteredSchema(
            subject=answer["subject"],
            version=answer["version"],
            id=answer["id"],
            schema=answer["schema"],
            type=answer.get("schemaType") or AVRO,  # Avro is left out of an answer
            references=tuple(answer.get("references") or ()),
        )

    def schema_by_id(self, schema_id: int) -> str:
        """The schema that a record with this id was written with; SchemaMissing when unknown."""
        if not self.url:
            raise ConfigError(f"a record names schema {schema_id} of a registry: set registry.url")
        return str(self._call("GET", f"/schemas/ids/{schema_id}")["schema"])

    def type_by_id(self, schema_id: int) -> str:
        """Avro, JSON Schema or Protobuf, as the registry spells them."""
        return str(self._call("GET", f"/schemas/ids/{schema_id}").get("schemaType") or AVRO)

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

    def mode(self, subject: str | None = None) -> str | None:
        """Tell the mode of a subject, None when it follows the global one; else the global."""
        if subject is None:
            return str(self._call("GET", "/mode")["mode"])
        try:
            return str(self._call("GET", f"/mode/{quote(subject, safe='')}")["mode"])
        except SchemaMissing:
            return None

    def set_mode(self, mode: str, subject: str | None = None) -> None:
        """Set it, also where something is registered already."""
        path = f"/mode/{quote(subject, safe='')}" if subject else "/mode"
        self._call("PUT", f"{path}?force=true", {"mode": mode})

    def register(
        self,
        subject: str,
        schema: str,
        kind: str = AVRO,
        *,
        references: Iterable[dict[str, Any]] = (),
        at: tuple[int, int] | None = None,
    ) -> int:
        """Register and return the id. Which id it gets is the registry's choice: compare it.

        `at` asks for an id and a version, which takes mode IMPORT.
        """
        body: dict[str, Any] = {"schema": schema, "schemaType": kind}
        if listed := [dict(one) for one in references]:
            body["references"] = listed
        if at is not None:
            body["id"], body["version"] = at
        return int(self._call("POST", _versions(subject), body, repeatable=True)["id"])

    def delete(self, subject: str, *, permanent: bool = False) -> list[int]:
        """Delete every version; `permanent` needs a soft delete before it."""
        path = f"/subjects/{quote(subject, safe='')}?permanent={_word(permanent)}"
        return sorted(self._call("DELETE", path))

    def delete_version(self, subject: str, version: int) -> None:
        """Delete one version, so that it can still be asked for."""
        self._call("DELETE", f"{_versions(subject)}/{version}")

    def inventory(self) -> Inventory:
        """Read every subject, version and setting, soft-deleted ones marked."""
        return self.everything()[0]

    def everything(self) -> tuple[Inventory, bytes | None]:
        """Read it all; with the registry's own export, where it has one that keeps ids."""
        own = apicurio.beside(self._place, self._patience)
        if own is None:
            return self._listed(), None
        with own:
            export, mode = own.export(), self.mode() or READWRITE
            return apicurio.inventory(export, own.system(), own.settings(), mode), export

    def _listed(self) -> Inventory:
        subjects, living = self.subjects(deleted=True), set(self.subjects())
        levels = {s: self.compatibility(s) for s in subjects}
        modes = {s: self.mode(s) for s in subjects}
        schemas = tuple(s for subject in subjects for s in self._schemas(subject, living))
        return Inventory(
            mode=self.mode() or READWRITE,
            compatibility=self.compatibility() or "",
            subject_compatibility={s: level for s, level in levels.items() if level},
            schemas=schemas,
            registry="Confluent's interface",
            version=self._version(),
            subject_modes={s: mode for s, mode in modes.items() if mode},
            contexts=self._contexts(),
            highest=max((one.id or 0 for one in schemas), default=0),
            lacks=LACKS,
        )

    def _version(self) -> str:
        try:
            return str(self._call("GET", "/v1/metadata/version")["version"])
        except (SchemaMissing, KeyError, TypeError):
            return "it does not tell"

    def _contexts(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(self._call("GET", "/contexts")))
        except SchemaMissing:
            return ()

    def _schemas(self, subject: str, living: set[str]) -> Iterable[RegisteredSchema]:
        current = self.versions(subject) if subject in living else []
        for number in self.versions(subject, deleted=True):
            if number in current:
                yield self.version(subject, number)
                continue
            try:
                found = self.version(subject, number, deleted=True)
            except SchemaMissing:  # listed, and told no more
                found = RegisteredSchema(subject, number, None, None, "")
            yield replace(found, deleted=True)

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
