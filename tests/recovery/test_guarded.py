"""A publication is made again where event triggers guard against DDL."""

from fixtures.stacks.versions import since
from pipeline.postgres.replay.targets import Target
from pipeline.runbooks.point_in_time import PointInTimeRecovery, new_recovery
from tests.recovery.awkward import GUARD
from tests.recovery.history import Source


def test_a_guard_is_no_obstacle_for_the_publication(source: Source) -> None:
    since(17, "a session without event triggers")
    publication = source.config.cdc.publication
    source.run(f"create publication {publication} for table documents")
    backup = source.back_up("one")
    source.run(f"drop publication {publication}", GUARD)
    source.expect(source.write("kept").after)
    identity, journal = backup.manifest.facts["system_identifier"], new_recovery(source.config)
    PointInTimeRecovery(source.config, Target.parse("latest"), journal, identity, cdc=False).run()
    assert source.run("select pubname from pg_publication") == publication
