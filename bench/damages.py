"""Damage by its class in the catalogue that the checks were made from."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from bench.scenes import Scene
from bench.sides import Change, Side
from pipeline.postgres.wal.lsn import PAGE_SIZE

Inject = Callable[[Scene, Side], None]


@dataclass(frozen=True)
class Case:
    """One damage by the number of its class; one without a number is none."""

    number: str
    title: str
    inject: Inject


def nothing(title: str) -> Case:
    """Change nothing: a tool that complains of it complains of nothing."""
    return Case("", f"nothing: {title}", lambda _scene, _side: None)


def _flip(content: bytes, at: int) -> bytes:
    damaged = bytearray(content)
    damaged[at] ^= 0x10
    return bytes(damaged)


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _header(content: bytes, offset: int, size: int) -> bytes:
    """Change a number in the header of the segment's first page."""
    damaged = bytearray(content)
    for at in range(offset, offset + size):
        damaged[at] ^= 0x01
    return bytes(damaged)


def _other_timeline(content: bytes) -> bytes:
    """Every page says timeline 7 (XLogPageHeaderData: magic, flags, then the timeline)."""
    damaged = bytearray(content)
    for page in range(0, len(damaged), PAGE_SIZE):
        struct.pack_into("=I", damaged, page + 4, 7)
    return bytes(damaged)


def _both(number: str, title: str, inject: Inject) -> list[Case]:
    """A damage to a segment in the repository, and one that came so from the server."""

    def archived_so(scene: Scene, side: Side) -> None:
        inject(scene, side)
        side.agree_with_segment(scene.segment)

    return [
        Case(number, f"{title}, in the repository", inject),
        Case(number, f"{title}, and archived so", archived_so),
    ]


def _segment(change: Change) -> Inject:
    return lambda scene, side: side.change_segment(scene.segment, change)


def _file(change: Change) -> Inject:
    return lambda scene, side: side.change_file(scene.heap, change)


def _other_content(scene: Scene, side: Side) -> None:
    held: list[bytes] = []

    def look(content: bytes) -> bytes:
        held.append(content)
        return content

    side.change_segment(scene.neighbour, look)
    side.change_segment(scene.segment, lambda _: held[0])


IN_A_REPOSITORY = [
    nothing("the intact repository"),
    Case(
        "3",
        "one bit of a table's file in the backup",
        _file(lambda content: _flip(content, len(content) // 2)),
    ),
    Case("4", "a table's file in the backup cut", _file(_half)),
    Case("6", "a table's file missing from the backup", _file(lambda _: None)),
    Case("7", "a file too many in the backup", lambda _scene, side: side.add_file("base/1/99999")),
    Case("12", "the manifest of the backup before", lambda _scene, side: side.stale_manifest()),
    Case(
        "14",
        "another cluster's backups in place of ours",
        lambda scene, side: side.replace_backups(scene.stranger / side.repository.name),
    ),
    Case(
        "19",
        "backup_label missing",
        lambda _scene, side: side.change_file("backup_label", lambda _: None),
    ),
    Case(
        "21",
        "pg_control after pg_resetwal",
        lambda scene, side: side.change_file("global/pg_control", lambda _: scene.control),
    ),
    Case("26", "a WAL segment missing", _segment(lambda _: None)),
    *_both("27", "a WAL segment cut to half", _segment(_half)),
    *_both("28", "a WAL segment of zeros", _segment(lambda content: bytes(len(content)))),
    *_both("29", "another segment's content", _other_content),
    *_both("30", "a segment of another cluster", _segment(lambda held: _header(held, 24, 4))),
    *_both("31", "a segment of another timeline", _segment(_other_timeline)),
    *_both(
        "32", "one bit of a WAL record", _segment(lambda held: _flip(held, len(held) // 8 + 99))
    ),
    Case(
        "34",
        "the history of a timeline that a test restore left",
        lambda scene, side: side.add_history("00000002.history", scene.branch),
    ),
]

AFTER_A_PROMOTION = [
    nothing("a promotion behind the last backup"),
    Case(
        "33",
        "the history of the promotion missing",
        lambda _scene, side: side.drop_history("00000002.history"),
    ),
]


def _letter(content: bytes) -> bytes:
    """Make one x of a value a y, half way into the file."""
    at = content.index(b"xxxx", len(content) // 2)
    return content[:at] + b"y" + content[at + 1 :]


def _page(replacement: Callable[[bytes], bytes]) -> Change:
    """Change the page half way into the file."""

    def change(content: bytes) -> bytes:
        at = len(content) // PAGE_SIZE // 2 * PAGE_SIZE
        page = replacement(content[at : at + PAGE_SIZE])
        return content[:at] + page + content[at + PAGE_SIZE :]

    return change


BEFORE_THE_BACKUP: list[tuple[Case, Change]] = [
    (nothing("checksums are off"), lambda content: content),
    (Case("2", "one letter of a row", nothing("").inject), _letter),
    (Case("2", "a page of zeros", nothing("").inject), _page(lambda page: bytes(len(page)))),
    (
        Case("2", "the header of a page", nothing("").inject),
        _page(lambda page: page[:12] + b"\xff\xff" + page[14:]),  # pd_lower
    ),
]
"""Damage on the server's disk while it stands, without checksums; then each tool backs it up."""
