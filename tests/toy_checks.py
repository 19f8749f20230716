"""A subject so small that the framework itself can be tested: a folder with a file of words."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar, Self

from checks.check import Catalogue, Check, Observation
from fixtures.faults import files
from fixtures.scratch import Damage, S, Scratch
from pipeline.config import PipelineConfig, RepositoryConfig

WORDS = "words.txt"


@dataclass(frozen=True)
class Words:
    """A file that should say "sound" on each line."""

    live: ClassVar[bool] = False
    path: Path

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(config.repository.path / WORDS)


class ToyMaterial:
    """Copies of a folder with three sound words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    @contextmanager
    def scratch(self, kind: type[S]) -> Iterator[Scratch[S]]:
        self.made += 1
        folder = self.folder / f"scratch-{self.made}"
        (folder / "repository").mkdir(parents=True)
        (folder / "repository" / WORDS).write_text("sound\n" * 3)
        config = PipelineConfig.model_construct(
            repository=RepositoryConfig(path=folder / "repository")
        )
        yield Scratch(kind, folder, config, "nonce")
        shutil.rmtree(folder)


def all_sound(words: Words) -> Iterator[Observation]:
    """Every line is sound."""
    for number, line in enumerate(words.path.read_text(errors="replace").splitlines()):
        yield Observation(f"line {number}", None if line == "sound" else f"it says {line!r}")


def first_line_damaged(scratch: Scratch[Words], rng: Random) -> Damage:
    """A bit of the first line."""
    files.flip_bit(scratch, WORDS, rng, stop=5)
    return Damage("line 0", "one bit was flipped", says="it says '")


def toy(catalogue: Catalogue) -> Check[Words]:
    """The one sound check of a catalogue, without faults."""
    return catalogue.check("toy.all-sound", on=Words, advice="write it again")(all_sound)
