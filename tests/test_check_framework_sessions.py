"""Sessions of checks: exit codes, what the terminal says, what reports get."""

import json

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import pytest
from checks.check import Catalogue, NotRun, Observation
from checks.test_checks import test_detects, test_holds
from fixtures.scratch import FaultRefused
from tests.toy_checks import Words, ToyMaterial, all_sound, first_line_damaged, toy
import checks.test_checks

CATALOGUE = Catalogue()
checks.test_checks.CATALOGUE = CATALOGUE

@pytest.fixture(scope="session")
def material(tmp_path_factory):
    return ToyMaterial(tmp_path_factory.mktemp("toys"))

def rule(name, examine):
    check = CATALOGUE.check("toy." + name, on=Words, advice="write it again")(examine)
    check.detects(first_line_damaged)
    return check
"""
SOUND = 'rule("sound", all_sound)\n'
RED = """
def red(words):
    "It is red."
    yield Observation("line 0", "it is red")
rule("red", red)
"""
THROWS = """
def throws(words):
    "It throws."
    raise OSError("the disk is gone")
    yield
rule("throws", throws)
"""
EMPTY = 'rule("empty", lambda words: [])\n'
UNABLE = """
def unable(words):
    "It has no room."
    raise NotRun("[scratch] path is not configured")
    yield
rule("unable", unable)
"""
REFUSED = """
def aims_elsewhere(scratch, rng):
    raise FaultRefused("not this run's own")
rule("sound", all_sound).detects(aims_elsewhere)
"""
UNPROVEN = "toy(CATALOGUE)\nCATALOGUE.proven()\n"
BOUNDED = """
import signal

def bounded(words):
    "No clock is running out."
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    yield Observation("line 0", f"it is ended in {left:.0f} s" if left else None)
rule("bounded", bounded)
"""
NAMES = ("fixtures.seed", "fixtures.exit_codes", "checks.plugin")
PLUGINS = (*(word for name in NAMES for word in ("-p", name)), "-p", "no:cacheprovider")


def run(pytester: pytest.Pytester, suite: str, *options: str) -> pytest.RunResult:
    """Run in a process of its own: Allure and the catalogue of checks are one for each process."""
    pytester.makepyfile(test_toy=SUITE + suite)
    return pytester.runpytest_subprocess(*PLUGINS, *options)


@pytest.fixture(autouse=True)
def _sources(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))


@pytest.mark.parametrize(
    ("suite", "options", "code"),
    [
        pytest.param(SOUND, (), 0, id="sound"),
        pytest.param(SOUND + RED, ("-k", "test_holds"), 1, id="failed"),
        pytest.param(SOUND + THROWS, ("-k", "test_holds"), 11, id="throws"),
        pytest.param(SOUND + EMPTY, ("-k", "test_holds"), 11, id="nothing examined"),
        pytest.param(SOUND + UNABLE, ("-k", "test_holds"), 11, id="not run"),
        pytest.param(RED + THROWS, ("-k", "test_holds"), 1, id="failed and unknown"),
        pytest.param(REFUSED, (), 10, id="refused by an interlock"),
        pytest.param(SOUND, ("-k", "nothing"), 5, id="nothing collected"),
        pytest.param(UNPROVEN, (), 2, id="no fault"),
    ],
)
def test_exit_codes(
    pytester: pytest.Pytester, suite: str, options: tuple[str, ...], code: int
) -> None:
    assert run(pytester, suite, *options).ret == code


def test_a_check_of_a_real_pipeline_takes_as_long_as_it_takes(pytester: pytest.Pytester) -> None:
    """A run that was ended would be told as a finding."""
    options = "-k", "test_holds", "--timeout=900"
    assert run(pytester, BOUNDED, *options).ret == 1
    config = pytester.makefile(".toml", pipeline=f"[repository]\npath = '{pytester.path}'\n")
    assert run(pytester, BOUNDED, *options, f"--config={config}").ret == 0


def test_the_terminal_names_subject_problem_advice_and_seed(pytester: pytest.Pytester) -> None:
    told = run(pytester, SOUND + RED + THROWS, "-k", "test_holds", "--seed=42").stdout
    told.fnmatch_lines(["seed: 42"])
    told.fnmatch_lines(["FAIL    toy.red*", "*line 0: it is red", "*next: write it again"])
    told.fnmatch_lines(["UNKNOWN toy.throws*", "*OSError: the disk is gone"])
    told.fnmatch_lines(["checks: 1 FAIL, 1 UNKNOWN, 1 PASS"])


def test_what_was_not_verified_is_broken_in_allure(pytester: pytest.Pytester) -> None:
    run(pytester, SOUND + RED + THROWS, "--alluredir=allure", "-p", "allure_pytest")
    files = (pytester.path / "allure").glob("*-result.json")
    results = {result["name"]: result for result in (json.loads(f.read_text()) for f in files)}
    assert results["It throws."]["status"] == "broken"
    assert results["It is red."]["status"] == "failed"
    assert results["Every line is sound."]["status"] == "passed"
    assert results["Which check saw which fault"]["attachments"]


def test_the_matrix_tells_which_other_checks_saw_a_fault(pytester: pytest.Pytester) -> None:
    run(pytester, SOUND + 'rule("same", all_sound)\n', "-n2")
    matrix = json.loads((pytester.path / "reports" / "matrix.json").read_text())
    seen_by = {row["check"]: row["also_seen_by"] for row in matrix["proofs"]}
    assert seen_by == {"toy.sound": ["toy.same"], "toy.same": ["toy.sound"]}
