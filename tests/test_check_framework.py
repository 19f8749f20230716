"""The check framework: what it refuses, and what it never lets pass."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from checks import rules
from checks.check import Catalogue, CatalogueError, NotRun, Observation, Outcome, worst
from checks.proof import Injection, Proof, prove
from fixtures.faults import files
from fixtures.scratch import Damage, Fault, FaultRefused, InjectionFailed, Scratch
from tests.toy_checks import WORDS, ToyMaterial, Words, first_line_damaged, toy


@pytest.fixture
def material(tmp_path: Path) -> ToyMaterial:
    return ToyMaterial(tmp_path)


def proof_of(fault: Fault[Words], material: ToyMaterial, seed: int = 1) -> Proof:
    catalogue = Catalogue()
    check = toy(catalogue)
    check.detects(fault)
    return prove(Injection(check, fault.__name__), catalogue, material, Random(seed))


def test_a_check_without_a_fault_is_refused() -> None:
    catalogue = Catalogue()
    toy(catalogue)
    with pytest.raises(CatalogueError, match=r"toy\.all-sound"):
        catalogue.proven()


def test_two_checks_of_one_id_are_refused() -> None:
    catalogue = Catalogue()
    toy(catalogue)
    with pytest.raises(CatalogueError, match=r"toy\.all-sound"):
        toy(catalogue)


def test_two_faults_of_one_name_are_refused() -> None:
    check = toy(Catalogue())
    check.detects(first_line_damaged)
    with pytest.raises(CatalogueError, match="first_line_damaged"):
        check.detects(first_line_damaged)


def test_composition_takes_the_worst() -> None:
    assert worst([Outcome.PASS, Outcome.UNKNOWN, Outcome.FAIL]) is Outcome.FAIL
    assert worst([Outcome.PASS, Outcome.UNKNOWN]) is Outcome.UNKNOWN
    assert worst([Outcome.PASS, Outcome.NOT_RUN]) is Outcome.NOT_RUN
    assert worst([]) is Outcome.UNKNOWN


def test_nothing_examined_is_unknown(tmp_path: Path) -> None:
    (tmp_path / WORDS).touch()
    seen = toy(Catalogue()).run(lambda: Words(tmp_path / WORDS))
    assert (seen.outcome, seen.trouble) == (Outcome.UNKNOWN, "nothing was examined")


def test_a_check_that_throws_is_unknown_and_tells_why(tmp_path: Path) -> None:
    seen = toy(Catalogue()).run(lambda: Words(tmp_path / "missing"))
    assert seen.outcome is Outcome.UNKNOWN
    assert "FileNotFoundError" in (seen.trouble or "")


def test_a_problem_seen_before_an_error_stays_seen(tmp_path: Path) -> None:
    def throws_late(_words: Words) -> Iterator[Observation]:
        """It is odd."""
        yield Observation("line 0", "odd")
        raise OSError("the disk is gone")

    check = Catalogue().check("toy.late", on=Words, advice="")(throws_late)
    seen = check.run(lambda: Words(tmp_path))
    assert (seen.outcome, len(seen.problems)) == (Outcome.FAIL, 1)
    assert "the disk is gone" in (seen.trouble or "")


def test_a_check_that_cannot_run_is_not_run(tmp_path: Path) -> None:
    def unable(_words: Words) -> Iterator[Observation]:
        """It has room."""
        raise NotRun("[scratch] path is not configured")
        yield

    seen = Catalogue().check("toy.unable", on=Words, advice="")(unable).run(lambda: Words(tmp_path))
    assert seen.outcome is Outcome.NOT_RUN


def test_a_fault_that_is_seen_and_named_proves_the_check(material: ToyMaterial) -> None:
    assert proof_of(first_line_damaged, material).problem is None


def test_a_fault_that_the_check_does_not_see_is_no_proof(material: ToyMaterial) -> None:
    def another_file(scratch: Scratch[Words], _rng: Random) -> Damage:
        return files.copy_as(scratch, WORDS, "copy.txt")

    assert "it said PASS" in (proof_of(another_file, material).problem or "")


def test_a_fault_that_is_seen_but_not_named_is_no_proof(material: ToyMaterial) -> None:
    def misnamed(scratch: Scratch[Words], rng: Random) -> Damage:
        first_line_damaged(scratch, rng)
        return Damage("line 2", "damaged")

    assert "but it named ['line 0']" in (proof_of(misnamed, material).problem or "")


def test_a_fault_that_is_named_for_another_reason_is_no_proof(material: ToyMaterial) -> None:
    def misread(scratch: Scratch[Words], rng: Random) -> Damage:
        return replace(first_line_damaged(scratch, rng), says="it is missing")

    def understood(scratch: Scratch[Words], rng: Random) -> Damage:
        return replace(first_line_damaged(scratch, rng), says="it says '")

    told = proof_of(misread, material).problem or ""
    assert "expected 'it is missing', but it said [\"it says '" in told
    assert proof_of(understood, material).problem is None


def test_a_fault_that_gives_no_reason_is_no_proof(material: ToyMaterial) -> None:
    def silent(scratch: Scratch[Words], rng: Random) -> Damage:
        return replace(first_line_damaged(scratch, rng), says="")

    assert proof_of(silent, material).problem is not None


def test_a_fault_that_stops_the_check_is_no_proof(material: ToyMaterial) -> None:
    def removed(scratch: Scratch[Words], _rng: Random) -> Damage:
        return files.drop(scratch, WORDS)

    assert "it said UNKNOWN" in (proof_of(removed, material).problem or "")


def test_a_fault_that_changes_nothing_is_an_error(material: ToyMaterial) -> None:
    def idle(_scratch: Scratch[Words], _rng: Random) -> Damage:
        return Damage("line 0", "nothing")

    with pytest.raises(InjectionFailed, match="nothing in the copy differs"):
        proof_of(idle, material)


def test_a_fault_that_breaks_off_is_an_error(material: ToyMaterial) -> None:
    def breaks_off(scratch: Scratch[Words], _rng: Random) -> Damage:
        return files.drop(scratch, "not-there.txt")

    with pytest.raises(InjectionFailed, match=r"not-there\.txt"):
        proof_of(breaks_off, material)


def test_a_fault_outside_of_its_scratch_is_refused(material: ToyMaterial) -> None:
    outside = material.folder / "precious.txt"
    outside.write_text("precious")

    def escapes(scratch: Scratch[Words], _rng: Random) -> Damage:
        return files.drop(scratch, "../../precious.txt")

    with pytest.raises(FaultRefused, match="not inside the scratch folder"):
        proof_of(escapes, material)
    assert outside.read_text() == "precious"


def test_a_seed_makes_the_same_damage_again(material: ToyMaterial) -> None:
    found = [proof_of(first_line_damaged, material, seed).seen for seed in (7, 7, 8, 9)]
    assert found[0] == found[1]
    assert found[0] != found[2] or found[0] != found[3]


def test_a_flipped_bit_always_changes_the_byte(material: ToyMaterial) -> None:
    with material.scratch(Words) as scratch:
        for seed in range(200):
            before = scratch.fingerprint()
            files.flip_bit(scratch, WORDS, Random(seed))
            assert scratch.fingerprint() != before


def test_every_check_is_a_sentence_with_advice_and_two_faults() -> None:
    for check in rules.CATALOGUE.proven():
        assert check.title.endswith("."), check.id
        assert check.advice, check.id
        assert len(check.faults) >= 2, check.id
        assert all(fault.__doc__ for fault in check.faults.values()), check.id
