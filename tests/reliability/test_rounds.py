"""The loop that kills: it hits what it aims at, also where a command takes longer now and then."""

from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.rounds import repeat


@dataclass
class Shrinking:
    """Its first run is a long one, as of a call that does the work of those behind it."""

    lengths: list[float] = field(default_factory=lambda: [1.0])
    proven: int = 0

    def command(self) -> list[str]:
        return ["sleep", str(self.lengths.pop() if self.lengths else 0.02)]

    def prove(self) -> None:
        self.proven += 1

    def complete(self, out: str) -> None:
        assert out == ""

    def accompany(self, process: object) -> None:
        """It ends by itself."""


def test_a_command_that_has_less_to_do_than_before_is_hit_all_the_same(tmp_path: Path) -> None:
    story = Shrinking()
    repeat(story, {"cwd": tmp_path}, kills=2, seed=3)
    assert story.proven == 2
