"""Our own page checksums, against those that PostgreSQL wrote."""

from random import Random

import pytest

from checks.page_checksums import page_checksums
from checks.pages import PageWalk, first_block
from fixtures.faults.pages import used_pages
from fixtures.kafka_material import EitherMaterial
from fixtures.material import DATA, GeneratedMaterial
from fixtures.scratch import Material
from pipeline.postgres.wal.lsn import PAGE_SIZE

FAR = 1 << 64


@pytest.fixture(scope="module")
def relations(material: Material) -> list[tuple[str, bytes]]:
    """Every file of every relation of a stopped server, with its name."""
    assert isinstance(material, EitherMaterial)
    servers = material.postgres()
    assert isinstance(servers, GeneratedMaterial)
    data = servers.template / DATA
    names = (path.relative_to(data).as_posix() for path in sorted(data.rglob("*")))
    return [(name, (data / name).read_bytes()) for name in names if first_block(name) is not None]


def test_every_page_that_postgresql_wrote_has_the_checksum_that_we_compute(
    relations: list[tuple[str, bytes]],
) -> None:
    compared = 0
    for name, content in relations:
        due = list(page_checksums(content, first_block(name) or 0))
        for number in used_pages(content):
            page = content[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
            assert due[number] == int.from_bytes(page[8:10], "little"), (name, number)
            compared += 1
    assert compared > 2_000


def test_one_bit_anywhere_in_a_page_is_seen(relations: list[tuple[str, bytes]], seed: int) -> None:
    rng = Random(seed)
    full = [content for _, content in relations if used_pages(content)]
    for _ in range(300):
        content = rng.choice(full)
        number = rng.choice(used_pages(content))
        page = bytearray(content[number * PAGE_SIZE : (number + 1) * PAGE_SIZE])
        page[rng.randrange(PAGE_SIZE)] ^= 1 << rng.randrange(8)
        walk = PageWalk(number, checksums=True, torn_from=FAR)
        walk.feed(bytes(page))
        seen = walk.report()
        assert seen.wrong_sums or seen.bad_headers


def test_a_page_belongs_to_its_block(relations: list[tuple[str, bytes]]) -> None:
    content = next(content for _, content in relations if used_pages(content))
    (here,), (there,) = (list(page_checksums(content[:PAGE_SIZE], block)) for block in (0, 1))
    assert here != there


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("base/5/16384", 0),
        ("base/5/16384.2", 262_144),
        ("base/5/16384_vm", 0),
        ("global/1262_fsm", 0),
        ("pg_tblspc/16400/PG_18_202506291/5/16401.1", 131_072),
        ("base/5/PG_VERSION", None),
        ("base/5/INCREMENTAL.16384", None),
        ("base/5/t3_16384", None),
        ("global/pg_control", None),
    ],
)
def test_which_files_hold_pages_and_from_which_block_on(name: str, block: int | None) -> None:
    assert first_block(name) == block


def test_what_the_backup_was_writing_is_not_judged() -> None:
    """A page newer than the start of the backup is replaced by replay."""
    page = bytearray(Random(1).randbytes(PAGE_SIZE))
    walk = PageWalk(0, checksums=True, torn_from=0)
    walk.feed(bytes(page))
    assert (walk.report().wrong_sums, walk.report().bad_headers) == ([], [])
