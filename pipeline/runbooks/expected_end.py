"""What a plan says of the readable WAL, beside how far its server is known to have come."""

from datetime import timedelta

from pipeline.postgres.history.waldump import ReadableEnd
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.wal.receiver import NO_WORD, ExpectedEnd


def told(expected: ExpectedEnd | None) -> str:
    """Say how far the server had come."""
    if expected is None:
        return "unknown: no receiver wrote one"
    return f"{expected.lsn} at {expected.time:%Y-%m-%d %H:%M:%S} UTC"


def beyond(target: Target, expected: ExpectedEnd | None, timeline: int) -> str | None:
    """Tell why a moment after the last commit cannot be believed, or None when it can."""
    if expected is None:
        return "no commit follows that moment, and no receiver wrote how far the server had come"
    if unknown := expected.silent_on(timeline):
        return f"no commit follows that moment, and how far {unknown}"
    if target.time > expected.time + timedelta(seconds=1):
        return f"lies beyond the archive, which knows the server until {expected.time}"
    return None


def shortfall(readable: ReadableEnd, expected: ExpectedEnd | None, timeline: int) -> str:
    """Say how much of the WAL that the server wrote is not at hand; nothing where it all is."""
    unknown = expected.silent_on(timeline) if expected else NO_WORD
    if expected is None or unknown:
        return f"the WAL can be read to {readable.lsn}, but how far {unknown}"
    if readable.lsn >= expected.lsn:
        return ""
    return (
        f"the WAL can be read to {readable.lsn} ({readable.reason}); the server had come to "
        f"{told(expected)}: {expected.lsn - readable.lsn:,} bytes of WAL are missing"
    )
