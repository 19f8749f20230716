"""A server that could not archive for a while hands everything over once it can."""

from pipeline.postgres.wal.lsn import SEGMENT_SIZE
from pipeline.wait import wait_until
from tests.recovery.history import SOON, Source

WAITING = """
    select string_agg(name, ' ') from pg_ls_archive_statusdir() where name like '%.ready'
"""


def test_what_waited_for_the_archive_is_handed_over(source: Source) -> None:
    source.archive()
    archive = source.config.repository.path / "wal"
    archive.rename(archive.with_name("elsewhere"))
    archive.write_text("in the way")
    names = []
    for _ in range(9):
        source.run("select pg_logical_emit_message(false, 'pipeline', 'switch')")
        names.append(source.run("select pg_walfile_name(pg_switch_wal())"))
    assert source.run(WAITING).count("ready") == len(names)
    archive.unlink()
    archive.with_name("elsewhere").rename(archive)
    names.append(source.archive())  # wakes the archiver, which tries again once a minute
    wait_until("archiving", lambda: source.run(WAITING), within=SOON)
    pg_wal = source.data / "pg_wal"
    for name in names:
        archived = (archive / name).read_bytes()
        assert len(archived) == SEGMENT_SIZE
        assert archived == (pg_wal / name).read_bytes()
