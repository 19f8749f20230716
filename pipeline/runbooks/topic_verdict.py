"""What is still wrong with topics that were brought back, and what only looks wrong."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.config import PipelineConfig
from pipeline.kafka.replay.replay_journal import journal_of
from pipeline.runbooks.topic_evidence import Evidence
from pipeline.runbooks.topic_extent import survey


def still_harmed(
    config: PipelineConfig,
    evidence: Evidence,
    replays: Sequence[str],
    progress: Callable[[str], None],
) -> list[str]:
    """Compare the topics with the archive again, and their settings with what the replay gave.

    A replay holds the retention of a topic whose own would delete at once what it brought back.
    """
    due: dict[str, Mapping[str, str]] = {}
    for topic, overrides, held in _given(config, replays):
        due[topic] = overrides
        if held:
            progress(f"  {topic}: its retention stays held, as its replay said")
    harmed = survey(config, evidence.archive, evidence.replayed, same_life=False, due=due)
    return [line for one in harmed for line in one.lines()]


def _given(
    config: PipelineConfig, replays: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, str], bool]]:
    for name in replays:
        done = journal_of(config, name).done()
        given = done["give_back"]
        yield done["target"]["topic"], given["overrides"], given["held"]
