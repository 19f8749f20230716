"""Clusters of embedded stacks are copies of one that initdb made; none is the same server twice."""

from fixtures.stacks.native import NativeStack
from pipeline.postgres.server.control import control_data
from tests.recovery.history import Source


def test_a_cluster_that_is_made_anew_is_another_server(breakable: NativeStack) -> None:
    """A backup of the one must be refused beside the other."""
    source, seen = Source(breakable), set[int]()
    for _ in range(2):
        breakable.reset()
        seen.add(source.run("select system_identifier from pg_control_system()"))
        told = control_data(source.data, source.tools)
        assert int(told["Database system identifier"]) in seen
        assert told["Data page checksum version"] == "1"
    assert len(seen) == 2
    assert min(seen) > 0
