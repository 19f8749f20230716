"""PostgreSQL side by side: one cluster, in the order in which a measure leaves it to the next."""

from bench.backups import Backups
from bench.commands import Commands
from bench.contest import Contest
from bench.restores import Restores


class PostgresBench(Contest):
    """Fills the cluster, and has everything measured."""

    def run(self, scale: int, segments: int) -> list[str]:
        """Measure everything; answer the tables."""
        bench, backups, restores = self.bench, Backups(self), Restores(self)
        bench.create([line for peer in self.peers for line in peer.archive_lines()])
        self.pgbackrest.prepare()
        self._load(scale)
        for peer in (self.ours, self.barman):
            peer.prepare()
        bench.archive_all()
        tables = [backups.hashing(), backups.base()]
        starts = self._last_backups()
        self._write(segments)
        self._count(starts)
        commands = Commands(self)
        return [
            *tables,
            backups.verification(),
            *restores.promoted(),
            restores.replays(),
            commands.one(),
            commands.many(),
        ]

    def _load(self, scale: int) -> None:
        bench = self.bench
        self.say(f"loading pgbench at scale {scale}, a table with TOAST, and 300 small ones")
        pgbench = bench.programs.postgres / "pgbench"
        words = ("--initialize", "--init-steps=dtGp", "--quiet", f"--scale={scale}")
        bench.run(pgbench, *words, *bench.where, "postgres")
        bench.sql(
            """
            create table documents as
              select n as id, (select string_agg(md5((n * 1000 + i)::text), '')
                                 from generate_series(1, 150) i) as body
                from generate_series(1, 15000) n
            """,
            """
            do $$ begin for n in 1..300 loop
              execute format('create table small_%s as select g as id, md5(g::text) as note
                                from generate_series(1, 200) g', n);
            end loop; end $$
            """,
            "checkpoint",
        )
        size = bench.sql("select sum(pg_database_size(oid))::bigint from pg_database")
        self.database_bytes = size
        self.say(f"{size / 1e6:,.0f} MB of databases")

    def _last_backups(self) -> dict[str, int]:
        """One more of each, directly one after the other: all will replay nearly the same.

        Answers the number of the segment in which each began, as the server noted it.
        """
        self.say("the backups that are restored")
        starts = {}
        for peer in self.peers:
            peer.back_up()
            noted = max(self.bench.data.glob("pg_wal/*.backup"))
            starts[peer.name] = _number(noted.name)
            peer.expire()
        return starts

    def _write(self, segments: int) -> None:
        """Fill so many segments by inserts and scattered updates, and have them archived."""
        self.say(f"writing {segments} segments of WAL")
        bench = self.bench
        begun = bench.sql("select pg_current_wal_lsn()::text")
        written = 0
        while written < segments << 24:
            bench.sql(
                """
                update pgbench_accounts set abalance = abalance + 1
                 where aid in (select (random() * 300000)::int from generate_series(1, 4000))
                """,
                """
                insert into pgbench_history
                  select 1, 1, g, 1, now(), left(md5(g::text), 20) from generate_series(1, 20000) g
                """,
            )
            written = int(bench.sql(f"select pg_current_wal_lsn() - '{begun}'::pg_lsn"))
        self.ours.expect()
        bench.archive_all()
        self.barman.take_wal()
        self.rows = bench.sql("select count(*) from pgbench_history")

    def _count(self, starts: dict[str, int]) -> None:
        """Count what each one has to replay, up to the segment that was archived last."""
        end = _number(str(self.bench.sql("select last_archived_wal from pg_stat_archiver")))
        self.segments = {name: end - start + 1 for name, start in starts.items()}
        self.facts["segments"] = self.segments
        self.say(f"to replay: {self.segments}")


def _number(segment: str) -> int:
    """Where a segment of 16 MB stands in its timeline."""
    return int(segment[8:16], 16) * 256 + int(segment[16:24], 16)
