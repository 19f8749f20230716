"""What a registry holds, as plain values: to be backed up, compared, and brought back.

Two texts are the same schema when their canonical forms are. That form keeps names, defaults,
documentation and what converters add: whoever compares less takes one schema for another.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import fastavro

READWRITE = "READWRITE"
AVRO, JSON_SCHEMA, PROTOBUF = "AVRO", "JSON", "PROTOBUF"
Named = tuple[str, int]
"""A subject, and a version of it."""


@dataclass(frozen=True)
class RegisteredSchema:
    """One version of a subject. Data carries the id, so an id must keep its meaning for ever.

    `id` and `schema` are None where the registry lists a deleted version but gives it no more.
    `global_id` is Apicurio's other id, of the version and not of its text.
    """

    subject: str
    version: int
    id: int | None
    schema: str | None
    type: str
    references: tuple[dict[str, Any], ...] = ()
    deleted: bool = False
    global_id: int | None = None

    @property
    def named(self) -> Named:
        return self.subject, self.version

    @property
    def fingerprint(self) -> str:
        """A digest of what the schema means."""
        return fingerprint(self.type, self.schema or "", self.references)

    def __str__(self) -> str:
        return f"{self.subject} version {self.version}"


@dataclass(frozen=True)
class Inventory:
    """Everything that a restore has to bring back, and to be compared with afterwards.

    `ids` says what stands in records: an id of the text (`contentId`, as Confluent's), or of the
    version. `highest` is the highest id that was ever given, as far as the registry still knows;
    `lacks` names what this registry does not tell.
    """

    mode: str
    compatibility: str
    subject_compatibility: dict[str, str]
    schemas: tuple[RegisteredSchema, ...]
    registry: str = ""
    version: str = ""
    ids: str = "id"
    subject_modes: dict[str, str] = field(default_factory=dict)
    contexts: tuple[str, ...] = ()
    rules: dict[str, dict[str, str]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    highest: int = 0
    lacks: tuple[str, ...] = ()

    @cached_property
    def named(self) -> dict[Named, RegisteredSchema]:
        """Every version by its name."""
        return {one.named: one for one in self.schemas}

    @cached_property
    def by_id(self) -> dict[int, RegisteredSchema]:
        """A version for each id that has a text, a live one where there is any."""
        known = [one for one in self.schemas if one.schema is not None]
        deleted_first = sorted(known, key=lambda one: one.deleted, reverse=True)
        return {one.id: one for one in deleted_first if one.id is not None}

    @property
    def subjects(self) -> set[str]:
        return {one.subject for one in self.schemas}

    def facts(self) -> dict[str, Any]:
        """Tell the whole of it in a few words, for a manifest."""
        return {
            "registry": self.registry,
            "version": self.version,
            "ids": self.ids,
            "mode": self.mode,
            "compatibility": self.compatibility,
            "subjects": len(self.subjects),
            "versions": len(self.schemas),
            "deleted": sum(one.deleted for one in self.schemas),
            "highest_id": self.highest,
            "lacks": list(self.lacks),
        }


def canonical(kind: str, text: str) -> str:
    """Write a schema in the one form that all texts with its meaning have."""
    if kind == PROTOBUF:
        return " ".join(text.split())
    try:
        return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    except ValueError:
        return text  # it parses nowhere: `unusable` says so


def fingerprint(kind: str, text: str, references: tuple[dict[str, Any], ...] = ()) -> str:
    """Digest a schema with what it refers to."""
    content = [kind, canonical(kind, text), [dict(one) for one in references]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def differences(then: Inventory, now: Inventory) -> Iterator[tuple[str, str]]:
    """Say what of `then` is no more as it was: the name of each thing, and why.

    What was added since, under ids that were never given before, is no difference.
    """
    yield from schemas_changed(then, now)
    yield from settings_changed(then, now)


def schemas_changed(then: Inventory, now: Inventory) -> Iterator[tuple[str, str]]:
    """Say which versions are gone, have another id or text, or have risen."""
    for was in then.schemas:
        if problem := _changed(was, now.named.get(was.named)):
            yield str(was), problem
    for found in now.schemas:
        if found.named not in then.named and (found.id or 0) <= then.highest:
            told = f"has id {found.id} and was not there, and ids up to {then.highest} were given"
            yield str(found), f"it {told}: it has risen again, or took the id of another"


def _changed(was: RegisteredSchema, found: RegisteredSchema | None) -> str | None:
    if found is None:
        return "it is gone, also as a deleted one"
    if was.schema is None or found.schema is None:
        known = was.deleted == found.deleted
        return None if known else f"deleted is {found.deleted}, expected {was.deleted}"
    if found.id != was.id:
        return f"its id is {found.id}, expected {was.id}"
    if found.fingerprint != was.fingerprint:
        return f"id {was.id} is another schema: {_short(found)}, expected {_short(was)}"
    if was.deleted and not found.deleted:
        return "it was deleted, and has risen again"
    return None if was.deleted == found.deleted else "it is deleted, expected alive"


def settings_changed(then: Inventory, now: Inventory) -> Iterator[tuple[str, str]]:
    """Say which levels of compatibility, modes and rules are not what they were."""
    if now.compatibility != then.compatibility:
        told = f"compatibility is {now.compatibility}, expected {then.compatibility}"
        yield "global compatibility", told
    if now.mode != then.mode:
        yield "global mode", f"mode is {now.mode}, expected {then.mode}"
    for what, was, found in (
        ("compatibility", then.subject_compatibility, now.subject_compatibility),
        ("mode", then.subject_modes, now.subject_modes),
        ("rules", _told(then.rules), _told(now.rules)),
        ("setting", then.settings, now.settings),
    ):
        for name in sorted(was.keys() | found.keys()):
            known = name in then.subjects or name in was
            if known and (a := found.get(name)) != (b := was.get(name)):
                yield name, f"{what} is {a or 'none of its own'}, expected {b or 'none'}"


def _told(rules: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {
        name: ", ".join(f"{rule} {value}" for rule, value in sorted(each.items()))
        for name, each in rules.items()
    }


def collisions(wanted: Inventory, there: Inventory) -> Iterator[str]:
    """Say why one cannot be merged into the other: ids, texts and versions that contradict."""
    for one in wanted.schemas:
        other = there.by_id.get(one.id) if one.id is not None else None
        if other is not None and one.schema and other.fingerprint != one.fingerprint:
            yield f"id {one.id} is {one} in the backup, and another schema, {other}, there"
        standing = there.named.get(one.named)
        if standing is not None and standing.id != one.id:
            yield f"{one} has id {one.id} in the backup, and {standing.id} there"
    ids = {one.fingerprint: one.id for one in there.schemas if one.schema}
    for one in wanted.schemas:
        found = ids.get(one.fingerprint, one.id) if one.schema else one.id
        if found != one.id:
            yield f"the schema of {one} has id {one.id} in the backup, and {found} there"


def unusable(one: RegisteredSchema, every: Mapping[Named, RegisteredSchema]) -> str | None:
    """Say why nothing can be decoded by a schema: it does not parse, or a reference dangles."""
    if one.schema is None:
        return None  # a deleted one that the registry gives no more
    referred: dict[Named, str] = {}
    try:
        _refer(one, every, (), referred)
    except KeyError as dangling:
        return f"its reference to {dangling.args[0]} leads nowhere"
    except RecursionError:
        return "its references lead back to itself"
    if one.type == PROTOBUF:
        return None if one.schema.strip() else "it is empty"
    try:
        parsed = json.loads(one.schema)
        if one.type == AVRO:
            names: dict[str, Any] = {}
            for each in referred.values():
                fastavro.parse_schema(json.loads(each), named_schemas=names)
            fastavro.parse_schema(parsed, named_schemas=names)
    except (ValueError, TypeError, KeyError, fastavro.schema.SchemaParseException) as error:
        return f"it does not parse as {one.type}: {type(error).__name__}: {error}"
    return None


def _refer(
    one: RegisteredSchema,
    every: Mapping[Named, RegisteredSchema],
    above: tuple[Named, ...],
    found: dict[Named, str],
) -> None:
    """Add the texts that a schema is built on, the innermost first, each once.

    Raises KeyError for one that is not there.
    """
    if one.named in above:
        raise RecursionError
    for each in one.references:
        at = str(each.get("subject")), int(each.get("version", 0))
        other = every.get(at)
        if other is None or other.schema is None:
            raise KeyError(f"{at[0]} version {at[1]}")
        if at not in found:
            _refer(other, every, (*above, one.named), found)
            found[at] = other.schema


def in_order(schemas: tuple[RegisteredSchema, ...]) -> list[RegisteredSchema]:
    """Put what is referred to before what refers to it, else by id, older versions first."""
    every, found = {one.named: one for one in schemas}, dict[Named, RegisteredSchema]()

    def add(one: RegisteredSchema, above: tuple[Named, ...] = ()) -> None:
        if one.named in found or one.named in above:
            return
        for each in one.references:
            at = str(each.get("subject")), int(each.get("version", 0))
            if at in every:
                add(every[at], (*above, one.named))
        found[one.named] = one

    for one in sorted(schemas, key=lambda one: (one.subject, one.version)):
        add(one)
    return list(found.values())


def as_json(inventory: Inventory) -> bytes:
    """Write it as the object of a backup set."""
    body = {name: getattr(inventory, name) for name in inventory.__dataclass_fields__}
    body["schemas"] = [dict(vars(one), fingerprint=one.fingerprint) for one in inventory.schemas]
    return json.dumps(body, indent=1).encode()


def of_json(content: bytes) -> Inventory:
    """Read what `as_json` wrote. Raises ValueError where a fingerprint is not that of its text."""
    body = json.load(io.BytesIO(content))
    schemas = []
    for each in body.pop("schemas"):
        told = each.pop("fingerprint")
        one = RegisteredSchema(**each | {"references": tuple(each["references"])})
        if one.fingerprint != told:
            raise ValueError(f"{one}: its fingerprint is {one.fingerprint}, expected {told}")
        schemas.append(one)
    listed = {name: tuple(body[name]) for name in ("contexts", "lacks")}
    return replace(Inventory(**body | listed, schemas=()), schemas=tuple(schemas))


def _short(one: RegisteredSchema) -> str:
    text = canonical(one.type, one.schema or "")
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
