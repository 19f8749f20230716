"""Recovery targets as operators write them: read back as written, or refused with the reason."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.postgres.replay.targets import SPELLINGS, Target, TargetKind
from pipeline.postgres.wal.lsn import Lsn

offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 - `timezones` gives both their zone
    datetime(2100, 1, 1),  # noqa: DTZ001 - as above
    timezones=offsets,
)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
positions = st.integers(0, (1 << 64) - 1).map(Lsn)
either_side = st.one_of(
    st.builds(Target, st.just(TargetKind.TIME), moments.map(datetime.isoformat), st.booleans()),
    st.builds(Target, st.just(TargetKind.LSN), positions.map(str), st.booleans()),
    st.builds(Target, st.just(TargetKind.XID), st.integers(3, 2**32 - 1).map(str), st.booleans()),
)
targets = st.one_of(
    either_side,
    st.builds(Target, st.just(TargetKind.NAME), names),
    st.sampled_from([Target(TargetKind.LATEST), Target(TargetKind.IMMEDIATE)]),
)


@given(targets)
def test_a_target_reads_back_what_it_writes(target: Target) -> None:
    assert Target.parse(str(target)) == target


@given(targets)
def test_postgresql_gets_one_target_and_is_told_to_pause_there(target: Target) -> None:
    """Without pause it would promote before anybody asked it where it stands."""
    settings = target.settings()
    if target.kind is TargetKind.LATEST:
        assert settings == {}
    else:
        assert settings.pop("recovery_target_action") == "pause"
        settings.pop("recovery_target_inclusive", None)
        assert len(settings) == 1


@given(moments)
def test_postgresql_gets_the_moment_as_this_package_understood_it(moment: datetime) -> None:
    target = Target.parse(f"time:{moment.isoformat()}")
    told = datetime.fromisoformat(target.settings()["recovery_target_time"])
    assert told == target.time == moment


@pytest.mark.parametrize(
    "text",
    [
        "time:2026-W10-1T02:03:04Z",  # an ISO week, which PostgreSQL does not read
        "time:20260302T020304Z",
        "time:2026-03-02T02:03:04,000000+00:00",
    ],
)
def test_a_moment_in_an_unusual_spelling_reaches_postgresql_in_the_usual_one(text: str) -> None:
    assert Target.parse(text).time == datetime(2026, 3, 2, 2, 3, 4, tzinfo=UTC)
    assert Target.parse(text).settings()["recovery_target_time"] == "2026-03-02T02:03:04+00:00"


@pytest.mark.parametrize("line", SPELLINGS.splitlines())
def test_every_spelling_that_is_taught_is_understood(line: str) -> None:
    text = line.split(maxsplit=1)[0]
    assert str(Target.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("time:2026-03-01T02:03:04", "needs its offset from UTC"),
        ("time:2026-03-01", "needs its offset from UTC"),
        ("time:yesterday", "Invalid isoformat"),
        ("time:", "Invalid isoformat"),
        ("lsn:", "is not an LSN"),
        ("lsn:0/G", "is not an LSN"),
        ("lsn:3000028", "is not an LSN"),
        ("xid:", "transaction id"),
        ("xid:four", "transaction id"),
        ("xid:-4", "transaction id"),
        ("xid:4_711", "transaction id"),
        ("xid: 4711", "transaction id"),
        ("xid:0x10", "transaction id"),
        ("xid:010", "transaction id"),  # octal to PostgreSQL, ten to Python
        ("xid:2", "transaction id"),  # the server's own
        ("name:", "has no name"),
        ("before:name:migration", "no side"),  # PostgreSQL would ignore "before"
        ("name:" + "n" * 64, "63 bytes"),  # PostgreSQL refuses to start with it
        ("latest:now", "takes no value"),
        ("immediate:1", "takes no value"),
        ("before:latest", "takes no value"),
        ("before:immediate", "takes no value"),
        ("", "is not a valid TargetKind"),
        ("Latest", "is not a valid TargetKind"),
        ("2026-03-01T02:03:04Z", "is not a valid TargetKind"),
        ("before:before:xid:4", "is not a valid TargetKind"),
    ],
)
def test_what_is_no_target_is_refused_with_the_reason_and_what_was_expected(
    text: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        Target.parse(text)
    assert repr(text) in str(refused.value)
    assert SPELLINGS in str(refused.value)
