"""Each precondition of a recovery of the registry refuses before a connector is stopped."""

from pathlib import Path

from pipeline.config import PipelineConfig, RegistryConfig, RepositoryConfig
from pipeline.repository import marker
from pipeline.runbooks.registry_asked import Asked, Way
from pipeline.runbooks.registry_loss import RegistryRecovery, new_recovery
from tests.recovery.workers import worker
from tests.sets import committed


def told(folder: Path, name: str, url: str, **asked: object) -> list[str]:
    """What the precondition of that name has against a recovery with that registry."""
    config = PipelineConfig(
        registry=RegistryConfig(url=url), repository=RepositoryConfig(path=folder)
    )
    said = Asked(**{"cdc": False} | asked)  # type: ignore[arg-type]  # as a test names them
    recovery = RegistryRecovery(config, said, new_recovery(config), "A")
    (one,) = (one for one in recovery.preconditions() if one.name == name)
    return one.problems()


def kept(folder: Path) -> Path:
    """A repository with a set of a registry that keeps nothing in Kafka."""
    marker.make(str(folder))
    committed(folder, "schemas", facts={"cluster_id": "A", "storage": None})
    return folder


def test_a_way_that_is_not_open_is_told(tmp_path: Path) -> None:
    folder = kept(tmp_path)
    with worker({}, path="subjects") as answers, worker({}, path="elsewhere") as silent:
        assert told(folder, "way", answers) == []
        (away,) = told(folder, "way", silent)
        (without,) = told(folder, "way", answers, way=Way.STORAGE)
        (nowhere,) = told(folder, "way", "", way=Way.STORAGE)
    assert nowhere == "registry.url is empty: say where the registry is"
    assert away.startswith("the registry must answer to take schemas: ")
    assert without.endswith("holds no storage topic: take another --way")


def test_an_unfinished_recovery_of_the_registry_is_told(tmp_path: Path) -> None:
    folder = kept(tmp_path)
    config = PipelineConfig(repository=RepositoryConfig(path=folder))
    other = new_recovery(config)
    other.write("look", "done", way="export")
    other.write("fence", "began")
    with worker({}, path="subjects") as url:
        (one,) = told(folder, "no-other-recovery", url)
        assert told(folder, "no-other-recovery", url, instead_of=other.recovery) == []
    assert one.startswith(f"{other.recovery} did not come to its end")
