"""Backup sets in a store: nothing is a backup set until its manifest is committed, last."""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import BackupError, ConfigError, NoBackup, ObjectMissing, StoreError
from pipeline.repository.store import Store, StoredObject, read

MANIFEST = "manifest.json"
FORMAT = 1
MADE_BY = "recovery-drills 0.1"
_LABEL = re.compile(r"[a-z]+-[\w.-]+", re.ASCII)


class Manifest(BaseModel):
    """What a backup run wrote. `facts` is the kind's own: LSNs, versions, inventory, offsets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    kind: str
    label: str
    started: AwareDatetime
    finished: AwareDatetime
    made_by: str
    facts: dict[str, Any] = Field(default_factory=dict)
    objects: tuple[StoredObject, ...]

    def sealed(self) -> bytes:
        """The manifest as bytes, with a digest over its own body in canonical JSON."""
        body = self.model_dump(mode="json")
        return json.dumps({"manifest": body, "sha256": _digest(body)}, indent=1).encode()

    @classmethod
    def unsealed(cls, data: bytes, where: str) -> Self:
        """Read a sealed manifest; BackupError when it was cut, edited or is of a newer format."""
        try:
            sealed = json.loads(data)
            body, expected = sealed["manifest"], sealed["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise BackupError(f"{where}: not a manifest ({error})") from error
        if (found := _digest(body)) != expected:
            raise BackupError(f"{where}: manifest digest is {found}, its seal says {expected}")
        stated = body.get("format") if isinstance(body, dict) else None
        if stated != FORMAT:
            raise BackupError(f"{where}: manifest format {stated}; this version reads {FORMAT}")
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise BackupError(f"{where}: {error}") from error


def folder_of(label: str) -> str:
    """Key prefix of the set with that label, which begins with its kind."""
    return f"sets/{label.partition('-')[0]}/{label}/"


def _digest(body: object) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class BackupSet:
    """One committed backup: objects and the manifest that lists them."""

    manifest: Manifest
    store: Store

    @property
    def label(self) -> str:
        return self.manifest.label

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def prefix(self) -> str:
        return folder_of(self.label)


@dataclass(frozen=True)
class Draft:
    """A backup set while it is written: its objects count for nothing before `commit`.

    Who leaves it by an error leaves nothing of it. Only of a killed one objects stay, and so do
    those that an archive of topics stores below `prefix` by itself: its next run goes on from them.
    """

    repository: "Repository"
    kind: str
    label: str
    started: datetime
    _loose: list[str] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        return folder_of(self.label)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for key in self._loose if kind is not None else ():
            # the error is what counts; what cannot be removed is no backup set, and `retain` has it
            try:
                self.repository.store.delete(key)
            except ObjectMissing:
                continue
            except StoreError:
                if key == self.prefix + MANIFEST:
                    return  # it makes a backup set of the objects: none of them may go

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """Store an object of the set under its name."""
        key = self.prefix + name
        self._loose.append(key)  # before: a store may fail with the object in place
        return self.repository.store.put(key, chunks)

    def commit(
        self,
        facts: dict[str, Any],
        objects: Iterable[StoredObject],
        note: "Note | None" = None,
    ) -> BackupSet:
        """Make it a backup set that finished now; `note` adds facts that others know of it."""
        manifest = Manifest(
            kind=self.kind,
            label=self.label,
            started=self.started,
            finished=datetime.now(UTC),
            made_by=MADE_BY,
            facts=facts,
            objects=tuple(objects),
        )
        if note is not None:
            manifest = manifest.model_copy(update={"facts": facts | note(manifest)})
        self._loose.insert(0, self.prefix + MANIFEST)
        taken = self.repository.commit(manifest)
        self._loose.clear()
        return taken


class Repository:
    """Backup sets, the WAL archive and the logs of recoveries, below one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def new_label(self, kind: str, at: datetime) -> str:
        """A label that sorts by time, also within a second, and that no two runs share."""
        within = at.microsecond * 0x10000 // 1_000_000
        return f"{kind}-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{within:04x}{secrets.token_hex(2)}"

    def begin(self, kind: str) -> Draft:
        """Begin a set of that kind, now."""
        started = datetime.now(UTC)
        return Draft(self, kind, self.new_label(kind, started), started)

    def commit(self, manifest: Manifest) -> BackupSet:
        """Make it a backup set: every object is there, then the manifest is written.

        An object may lie in another set's folder, where it is shared.
        """
        prefix = folder_of(manifest.label)
        shared = any(not entry.key.startswith(prefix) for entry in manifest.objects)
        present = set(self.store.list(f"sets/{manifest.kind}/" if shared else prefix))
        if missing := [entry.key for entry in manifest.objects if entry.key not in present]:
            raise BackupError(f"{manifest.label}: cannot commit, not stored: {missing}")
        self.store.put(prefix + MANIFEST, [manifest.sealed()])
        return BackupSet(manifest, self.store)

    def get(self, label: str) -> BackupSet:
        """The set of that label; NoBackup when there is none, BackupError when it is bad."""
        if not _LABEL.fullmatch(label):
            raise ConfigError(f"{label!r} is no label of a backup set; `pipeline list` names them")
        kind, key = label.partition("-")[0], folder_of(label) + MANIFEST
        try:
            sealed = read(self.store, key)
        except ObjectMissing:
            raise NoBackup(f"backup set {label}", self.store.where) from None
        manifest = Manifest.unsealed(sealed, key)
        if (manifest.kind, manifest.label) != (kind, label):
            raise BackupError(f"{key}: the manifest is that of {manifest.label!r}")
        return BackupSet(manifest, self.store)

    def labels(self, kind: str | None = None) -> list[str]:
        """Labels of the committed sets, oldest first, unread."""
        pattern = re.compile(r"sets/([^/]+)/([^/]+)/" + re.escape(MANIFEST))
        matches = (pattern.fullmatch(key) for key in self.store.list("sets/"))
        found = [m[2] for m in matches if m and kind in {None, m[1]}]
        return sorted(found, key=lambda label: label.partition("-")[2])

    def __iter__(self) -> Iterator[BackupSet]:
        return self.sets()

    def sets(
        self, kind: str | None = None, unreadable: Callable[[str, str], None] | None = None
    ) -> Iterator[BackupSet]:
        """Committed sets, oldest first. A bad manifest raises: it must not pass for "none".

        Who goes on without such a set says so: `unreadable` hears its label, and what is wrong.
        """
        for label in self.labels(kind):
            try:
                yield self.get(label)
            except (BackupError, StoreError) as error:
                if isinstance(error, ObjectMissing):
                    continue  # retention takes the manifest first
                if unreadable is None:
                    raise
                unreadable(label, str(error))


Note = Callable[[Manifest], dict[str, Any]]
"""Adds facts to a set that is about to be committed."""


def total_size(objects: Iterable[StoredObject]) -> int:
    """Bytes of all objects together."""
    return sum(entry.size for entry in objects)
