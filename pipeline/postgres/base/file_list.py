"""What PostgreSQL lists in its backup_manifest, and the files that are compared with it."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import RestoreError
from pipeline.postgres.base.server_manifest import NAME

WAL = "pg_wal/"
_SEAL = b'"Manifest-Checksum"'
_NAMED = 5  # of many missing files


@dataclass(frozen=True)
class Listed:
    """One file: `size` in bytes, `sha256` in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class WalRange:
    """WAL that the backup needs to become consistent."""

    timeline: int
    start: str
    end: str


@dataclass
class FileList:
    """Every file of a base backup but its WAL; `met` are those that were unpacked and agree."""

    label: str
    files: dict[str, Listed]
    ranges: list[WalRange]
    met: set[str] = field(default_factory=set)

    @classmethod
    def parse(cls, label: str, content: bytes, system_identifier: str) -> "FileList":
        """Read the manifest. Raises RestoreError when it is not whole or of another server.

        Only SHA-256 will do: pg_control ends with its own CRC-32C, so that the CRC-32C of every
        sound pg_control is the same, and pg_verifybackup takes one that pg_resetwal wrote.
        """
        body, seal, _ = content.rpartition(_SEAL)
        try:
            told = json.loads(content)
            sealed = told["Manifest-Checksum"] if seal else None
            every = {_path(entry): _listed(entry) for entry in told["Files"]}
            ranges = [
                WalRange(int(entry["Timeline"]), entry["Start-LSN"], entry["End-LSN"])
                for entry in told["WAL-Ranges"]
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise RestoreError(f"{label}: {NAME} cannot be read: {error!r}") from error
        if (found := hashlib.sha256(body).hexdigest()) != sealed:
            raise RestoreError(f"{label}: {NAME} has sha256 {found}, it says {sealed}")
        identity = str(told.get("System-Identifier", system_identifier))  # since 17
        if identity != system_identifier:
            raise RestoreError(
                f"{label}: {NAME} is of system identifier {identity}, expected {system_identifier}"
            )
        files = {name: one for name, one in every.items() if not name.startswith(WAL)}
        # its copy in a streamed archive is compared as well
        files[NAME] = Listed(len(content), hashlib.sha256(content).hexdigest())
        return cls(label, files, ranges, {NAME})

    def refuse_unlisted(self, name: str) -> None:
        """Raise RestoreError for a file that PostgreSQL did not put there, or put there once."""
        if name.startswith(WAL):
            return  # read by pg_waldump instead
        if name not in self.files:
            raise RestoreError(f"{self.label}: {name} is not in {NAME}: somebody added it")
        if name in self.met and name != NAME:
            raise RestoreError(f"{self.label}: {name} is there twice")

    def compare(self, name: str, found: Listed) -> None:
        """Raise RestoreError when a file is not the one that PostgreSQL listed."""
        if name.startswith(WAL):
            return
        expected = self.files[name]
        if found != expected:
            raise RestoreError(
                f"{self.label}: {name}: {NAME} lists {expected.size} bytes with sha256 "
                f"{expected.sha256}, found {found.size} bytes with {found.sha256}: it was damaged "
                "before it was stored"
            )
        self.met.add(name)

    def refuse_missing(self) -> None:
        """Raise RestoreError when something that PostgreSQL listed was in no archive."""
        if missing := sorted(self.files.keys() - self.met):
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise RestoreError(
                f"{self.label}: {', '.join(missing[:_NAMED])}{more}: in {NAME}, and in no archive"
            )

    def waldump_arguments(self) -> Iterator[tuple[str, ...]]:
        """Have pg_waldump read each range to its end, as pg_verifybackup does."""
        for one in self.ranges:
            yield (f"--timeline={one.timeline}", f"--start={one.start}", f"--end={one.end}")


def _path(entry: dict[str, Any]) -> str:
    if "Encoded-Path" in entry:  # not UTF-8
        return os.fsdecode(bytes.fromhex(entry["Encoded-Path"]))
    return str(entry["Path"])


def _listed(entry: dict[str, Any]) -> Listed:
    if entry.get("Checksum-Algorithm") != "SHA256":
        raise ValueError(
            f"{_path(entry)} has a checksum by {entry.get('Checksum-Algorithm')}, expected SHA256"
        )
    return Listed(int(entry["Size"]), str(entry["Checksum"]).lower())
