"""The frame of runbooks: refused before anything is touched, resumed by what is true now."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BeginAgain, ConfigError, RecoveryRefused, ServerError
from pipeline.repository.journal import Journal
from pipeline.runbooks.runbook import Facts, Observe, Phase, Precondition, Progress, Runbook, Step
from tests.recovery.interrupted import Power

NAMES = ("look", "fence", "keep", "open", "serve")


@dataclass
class Toy(Runbook):
    """Sets a flag in each step; `true` is the world, which others may change."""

    kind: ClassVar[str] = "toy"
    first: ClassVar[str] = "look"
    last: ClassVar[str] = "serve"
    journal: Journal
    true: set[str] = field(default_factory=set)
    acted: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    progress: Progress = print
    typed: str = "this"
    asked: Sequence[Precondition] = ()
    broken: str = ""
    observe: Observe = lambda _step, _facts: None

    def __post_init__(self) -> None:
        self.progress = self.said.append

    def identify(self) -> None:
        if self.typed != "this":
            raise RecoveryRefused(f"typed {self.typed!r}, found 'this'")

    def preconditions(self) -> Sequence[Precondition]:
        return self.asked

    def steps(self) -> Sequence[Step]:
        until = {"fence": "open"}
        return [
            Step(name, Phase.STOP, self._act(name), self._holds(name), until.get(name, ""))
            for name in NAMES
        ]

    def _act(self, name: str) -> Callable[[], Facts]:
        def act() -> Facts:
            self.acted.append(name)
            if name == self.broken:
                raise ServerError(f"{name} broke")
            if name == "open":
                self.true.discard("fence")
            self.true.add(name)
            return {}

        return act

    def _holds(self, name: str) -> Callable[[Facts], str | None]:
        return lambda _facts: None if name in self.true else f"{name} was undone"


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(Journal.new(tmp_path, Toy.kind))


def test_every_step_is_done_once_and_the_fence_ends_with_the_opening(toy: Toy) -> None:
    toy.run()
    assert toy.acted == list(NAMES)
    toy.run()
    assert toy.acted == list(NAMES)


def test_a_step_that_holds_no_more_is_done_again_before_the_next_one(toy: Toy) -> None:
    toy.broken = "open"
    with pytest.raises(ServerError, match="open broke"):
        toy.run()
    toy.true.discard("fence")  # somebody started the old server again
    toy.broken, toy.acted = "", []
    toy.run()
    assert toy.acted == ["fence", "open", "serve"]
    assert "  fence does not hold any more: fence was undone" in toy.said


def test_what_never_holds_ends_by_saying_so(toy: Toy) -> None:
    toy.true = set()
    steps = toy.steps()

    def never() -> Sequence[Step]:
        return [Step("look", Phase.STOP, dict, lambda _: "it is never true"), *steps[1:]]

    toy.steps = never  # type: ignore[method-assign]  # one step of this one is false for ever
    with pytest.raises(BeginAgain, match="look was done 3 times more and does not hold"):
        toy.run()


def test_the_identity_is_asked_on_every_run(toy: Toy) -> None:
    toy.run()
    toy.typed = "that"
    with pytest.raises(RecoveryRefused, match="typed 'that'"):
        toy.run()


def test_every_precondition_is_told_at_once_and_nothing_was_touched(toy: Toy) -> None:
    def unreadable() -> Iterator[str]:
        yield "one"
        raise ServerError("the second cannot be asked")

    toy.asked = [
        Precondition("room", lambda: ["/data: expected 5 bytes, found 3"], "Make room"),
        Precondition("nothing", list, "Never said"),
        Precondition("connect", unreadable, "Start it", "--without-connect"),
    ]
    untold = "cannot be found out: the second cannot be asked"
    with pytest.raises(RecoveryRefused) as refused:
        toy.run()
    assert str(refused.value).splitlines() == [
        "nothing was touched:",
        "  room: /data: expected 5 bytes, found 3. Make room.",
        f"  connect: {untold}. Start it. To go on all the same: --without-connect.",
    ]
    assert (toy.acted, list(Toy.unfinished(toy.journal.folder.parents[1]))) == ([], [])
    assert [line["result"] for line in toy.journal.lines()] == ["refused"]


def test_preconditions_are_not_asked_again_where_something_was_touched(toy: Toy) -> None:
    toy.broken = "open"
    with pytest.raises(ServerError):
        toy.run()
    toy.asked, toy.broken = [Precondition("room", lambda: ["none"], "Make room")], ""
    toy.run()
    assert toy.acted[-1] == "serve"


def test_only_one_process_has_a_recovery(toy: Toy) -> None:
    with (
        toy.journal.alone(),
        pytest.raises(RecoveryRefused, match="is running already"),
        Toy(toy.journal).journal.alone(),
    ):
        pass


def test_only_one_recovery_of_a_kind_runs(toy: Toy) -> None:
    """They would stop each other's servers, and each would take the other's for the damaged one."""
    other = Toy(Journal.new(toy.journal.folder.parents[1], Toy.kind))
    with (
        other.journal.only(Toy.kind),
        pytest.raises(RecoveryRefused, match="another recovery of the kind toy is running already"),
    ):
        toy.run()
    assert not toy.acted


def test_a_recovery_that_touched_something_is_known_until_it_ends_or_is_given_up(toy: Toy) -> None:
    repository = toy.journal.folder.parents[1]
    toy.broken = "keep"
    with pytest.raises(ServerError):
        toy.run()
    assert [one.recovery for one in Toy.unfinished(repository)] == [toy.journal.recovery]
    toy.broken = ""
    toy.run()
    assert list(Toy.unfinished(repository)) == []
    other = Toy(Journal.new(repository, Toy.kind), broken="fence")
    with pytest.raises(ServerError):
        other.run()
    assert len(list(Toy.unfinished(repository))) == 1
    other.journal.abandon("another one does it")
    assert list(Toy.unfinished(repository)) == []


@pytest.mark.parametrize("name", ["toy-1", "../toy-1", "", "/etc", "other-2", "."])
def test_a_recovery_is_found_by_its_plain_name_and_kind_alone(tmp_path: Path, name: str) -> None:
    Journal(tmp_path / "recoveries" / "other-2").write("look", "done")
    with pytest.raises(ConfigError):
        Journal.named(tmp_path, Toy.kind, name)
    assert Journal.named(tmp_path, "other", "other-2").recovery == "other-2"


@given(data=st.data())
def test_whatever_dies_and_whatever_is_undone_all_holds_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Between the runs others undo any of it; the last run leaves nothing untrue."""
    toy = Toy(Journal.new(tmp_path_factory.mktemp("runs"), Toy.kind))

    def die(_step: str, _facts: Facts) -> None:
        raise Power

    for _ in range(data.draw(st.integers(0, 6))):
        toy.observe = die if data.draw(st.booleans()) else toy.observe
        toy.broken = data.draw(st.sampled_from(["", *NAMES]))
        with suppress(ServerError, Power):
            toy.run()
        toy.true -= data.draw(st.sets(st.sampled_from(NAMES)))
    toy.observe, toy.broken = Toy.observe, ""
    toy.run()
    assert set(NAMES) - {"fence"} <= toy.true
