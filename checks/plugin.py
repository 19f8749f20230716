"""The pytest plugin of the checks: what they run on, how outcomes are told, exit codes."""

import functools
from collections.abc import Generator, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest

from checks.bench import Bench
from checks.check import Catalogue, Check, Outcome
from checks.kubernetes_objects import HOW, Namespace
from checks.matrix import attach_matrix, write_matrix
from checks.proof import Injection
from checks.settle import CheckFailed
from checks.summary import MARKUP, write_summary
from checks.verdicts import Verdict, verdicts
from fixtures import cache
from fixtures.cdc_material import StateMaterial
from fixtures.connect_material import ConnectMaterial
from fixtures.histories import BRANCHED, CHAINED
from fixtures.kafka_material import EitherMaterial, KafkaMaterial
from fixtures.kubernetes_material import KubernetesMaterial
from fixtures.material import GeneratedMaterial, History
from fixtures.registry_material import RegistryMaterial
from fixtures.scratch import Material
from fixtures.stacks import training
from fixtures.stacks.artifacts import installed
from fixtures.stacks.runs import Run
from fixtures.verdict import NotVerified
from pipeline.config import PipelineConfig, load
from pipeline.errors import ConfigError

LETTERS = {Outcome.PASS: ".", Outcome.FAIL: "F", Outcome.UNKNOWN: "U", Outcome.NOT_RUN: "N"}
NAME = "checks"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("recovery drills").addoption(
        "--config",
        type=Path,
        metavar="pipeline.toml",
        help="check the backups and servers of this pipeline; faults go into generated copies",
    )


def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("config"):
        try:
            load(path)
        except ConfigError as error:  # told once, and not by every check
            raise pytest.UsageError(str(error)) from error
    config.pluginmanager.register(ChecksSession(config), NAME)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each check, and of each of its faults, in the module's CATALOGUE."""
    catalogue = getattr(metafunc.module, "CATALOGUE", None)
    if not isinstance(catalogue, Catalogue):
        return
    if "check" in metafunc.fixturenames:
        # a real repository may take hours, and a run that was cut short is no finding
        real = metafunc.config.getoption("config") is not None
        marks = [pytest.mark.timeout(0)] if real else []
        checks = [
            pytest.param(check, id=check.id, marks=marks)
            for check in catalogue
            if not (real and _has_no_cluster(metafunc.config, check))
        ]
        metafunc.parametrize("check", checks)
    if "injection" in metafunc.fixturenames:
        injections = [Injection(check, name) for check in catalogue for name in check.faults]
        metafunc.parametrize(
            "injection",
            [pytest.param(each, id=each.id, marks=_marks(each)) for each in injections],
        )


def pytest_report_header(config: pytest.Config) -> str | None:
    path = config.getoption("config")
    if path and load(path).kubernetes is None:
        return f"kubernetes.*: NOT RUN: no cluster is configured: {HOW}"
    return None


def _has_no_cluster(config: pytest.Config, check: Check[Any]) -> bool:
    """Most pipelines run elsewhere: what is not there leaves nothing unverified."""
    return check.on is Namespace and load(config.getoption("config")).kubernetes is None


def _marks(injection: Injection[Any]) -> list[pytest.MarkDecorator]:
    """Keep for the night what needs a server of its own, but for the first fault of each check."""
    check = injection.check
    needs_server = check.on.live or getattr(check.on, "trial", False)
    first = next(iter(check.faults))
    return [pytest.mark.slow] if needs_server and injection.name != first else []


@pytest.fixture(scope="session")
def pipeline_config(request: pytest.FixtureRequest) -> PipelineConfig | None:
    """The pipeline to examine; None where the run is on generated material alone."""
    path: Path | None = request.config.getoption("config")
    return load(path) if path else None


@pytest.fixture(scope="session")
def run_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of this run, of all its workers; it is gone afterwards."""
    session = request.config.pluginmanager.get_plugin(NAME)
    assert isinstance(session, ChecksSession)
    return session.folder


@pytest.fixture(scope="session")
def material(run_folder: Path) -> Iterator[Material]:
    """What faults are injected into copies of, made by the first worker that needs it."""

    @functools.cache
    def made(history: History) -> GeneratedMaterial:
        generated = GeneratedMaterial.at(run_folder, installed(), history)
        cache.ensure(generated.template, generated.make)
        return generated

    kafka = KafkaMaterial(run_folder, training.prepared)
    branched = partial(made, BRANCHED)
    connect = ConnectMaterial(branched, training.prepared)
    registry = RegistryMaterial(run_folder, training.prepared)
    try:
        chained = partial(made, CHAINED)
        yield EitherMaterial(
            branched,
            chained,
            {
                "with_connector": connect,
                "of_kubernetes": KubernetesMaterial(run_folder),
                "of_cdc": StateMaterial(branched),
                "registry": registry,
                "kafka": kafka,
            },
        )
    finally:
        registry.close()
        connect.close()
        kafka.close()


@pytest.fixture(scope="session")
def bench(
    request: pytest.FixtureRequest,
    pipeline_config: PipelineConfig | None,
    run_folder: Path,
    seed: int,
) -> Iterator[Bench]:
    """Where this worker's checks and proofs run."""
    notes = run_folder / "notes"
    material = partial(request.getfixturevalue, "material")
    with Bench(material, config=pipeline_config, notes=notes, seed=seed) as bench:
        yield bench


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[Any],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    error = call.excinfo.value if call.excinfo else None
    report = yield
    if isinstance(error, CheckFailed | NotVerified):
        report.longrepr = str(error)  # where it was raised tells nothing: the rule speaks
    return report


def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport,
) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    found = verdicts([report]) if isinstance(report, pytest.TestReport) else []
    if not found or report.when != "call":
        return None
    outcome = found[0].outcome
    categories = {Outcome.PASS: "passed", Outcome.FAIL: "failed"}
    category = categories.get(outcome, outcome.lower())
    return category, LETTERS[outcome], (outcome, MARKUP[outcome])


class ChecksSession:
    """What one process of a session knows: its run's folder, and all reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._run: Run | None = None
        self._reports: list[pytest.TestReport] = []

    @cached_property
    def folder(self) -> Path:
        """Begun when first needed; workers of xdist are told by their controller."""
        if told := getattr(self._config, "workerinput", {}).get(NAME):
            return Path(told)
        self._run = Run.begin(cache.folder() / "runs")
        return self._run.folder

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:  # noqa: ANN401 - xdist's, untyped
        node.workerinput[NAME] = str(self.folder)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)

    @property
    def _verdicts(self) -> list[Verdict]:
        return verdicts(report for report in self._reports if report.when == "call")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        found = self._verdicts
        if not found:
            return
        config = self._config.getoption("config")
        write_summary(terminalreporter, found, str(config or "generated material"))
        if proofs := [verdict for verdict in found if verdict.fault is not None]:
            folder = self._config.rootpath / "reports"
            files = write_matrix(folder, proofs, self._config.getoption("seed"))
            if results := self._config.getoption("allure_report_dir", None):
                attach_matrix(Path(results), files, proofs)

    def pytest_unconfigure(self) -> None:
        if self._run is not None:
            self._run.end()
