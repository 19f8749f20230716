"""Who takes part in the side by side of PostgreSQL, and what was measured."""

from bench.cluster import Bench
from bench.measure import Say, Series
from bench.peers import Peer
from bench.peers.barman import Barman
from bench.peers.ours import Ours
from bench.peers.pgbackrest import PgBackRest


class Contest:
    """One cluster, the contestants, and the facts for the raw record.

    `rows` are those that every restore must bring back, `segments` what each one replays.
    """

    def __init__(self, bench: Bench, rounds: int, say: Say) -> None:
        self.bench, self.rounds, self.say = bench, rounds, say
        self.ours, self.pgbackrest, self.barman = Ours(bench), PgBackRest(bench), Barman(bench)
        self.peers: list[Peer] = [self.ours, self.pgbackrest, self.barman]
        self.database_bytes = self.rows = 0
        self.segments: dict[str, int] = {}
        self.facts: dict[str, object] = {}

    def record(self, name: str, found: dict[str, Series]) -> None:
        """Note the seconds of each contestant."""
        self.facts[name] = {each.name: each.seconds for each in found.values()}
