"""pipeline.toml and the environment: what is read, what is refused, and what is never printed."""

import os
import traceback
from pathlib import Path

import pytest

from pipeline.config import PipelineConfig, load
from pipeline.errors import ConfigError

CANARY = "canary-7f3a9"
REPOSITORY = '[repository]\npath = "/backup"\n'


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a real pipeline configured."""
    for name in list(os.environ):
        if name.startswith("PIPELINE_"):
            monkeypatch.delenv(name)


def loaded(folder: Path, text: str) -> PipelineConfig:
    path = folder / "pipeline.toml"
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (REPOSITORY + '[postgres]\nhots = "db"\n', "postgres.hots"),
        (REPOSITORY + "[databases]\n", "databases"),
        (REPOSITORY + "[objectives.point_in_time]\nrto = 60\nrpa = 1\n", "point_in_time.rpa"),
        (REPOSITORY + '[postgres]\nport = "x"\n', "postgres.port"),
        ("[repository]\n", "repository.path"),
    ],
)
def test_a_key_that_is_unknown_or_bad_is_an_error_that_names_it(
    tmp_path: Path, text: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=named) as refused:
        loaded(tmp_path, text)
    assert "pipeline.toml" in str(refused.value)


def test_every_bad_key_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kafka\.x.*cdc\.y"):
        loaded(tmp_path, REPOSITORY + "[kafka]\nx = 1\n[cdc]\ny = 1\n")


def test_a_file_that_is_absent_or_no_toml_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml: No such file"):
        load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"pipeline\.toml is not TOML: .*line 1"):
        loaded(tmp_path, "[repository\n")


def test_the_environment_wins_over_the_file_key_by_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_POSTGRES__PORT", "6543")
    monkeypatch.setenv("PIPELINE_REPOSITORY__PATH", "/other")
    config = loaded(tmp_path, REPOSITORY + '[postgres]\nhost = "db"\nport = 1\n')
    assert (config.postgres.host, config.postgres.port) == ("db", 6543)
    assert config.repository.path == Path("/other")


def test_an_unknown_key_of_the_environment_is_an_error_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_POSTGRES__PROT", "6543")
    with pytest.raises(ConfigError, match=r"postgres\.prot"):
        loaded(tmp_path, REPOSITORY)


def test_a_secret_is_used_but_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_POSTGRES__PASSWORD", CANARY)
    config = loaded(tmp_path, REPOSITORY)
    assert config.postgres.conninfo()["password"] == CANARY
    assert CANARY not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"


@pytest.mark.parametrize(
    "text",
    [
        f'[postgres]\npassword = "{CANARY}"\nport = "x"\n' + REPOSITORY,
        f'[postgres]\npasword = "{CANARY}"\n' + REPOSITORY,
        f'[postgres]\npassword = ["{CANARY}"]\n' + REPOSITORY,
        f'[postgres]\npassword = "{CANARY}"\n',
    ],
    ids=["beside a bad key", "under a misspelt key", "of a wrong type", "without a repository"],
)
def test_a_refused_configuration_does_not_print_its_secret(tmp_path: Path, text: str) -> None:
    """Not even in a traceback: its chained causes are printed with it."""
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, text)
    assert CANARY not in "".join(traceback.format_exception(refused.value))


def test_a_password_file_is_read_at_the_moment_of_use(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{CANARY}\n")
    config = loaded(tmp_path, f'[postgres]\npassword_file = "{secret}"\n' + REPOSITORY)
    assert config.postgres.secret() == CANARY
    secret.write_text("rotated")
    assert config.postgres.secret() == "rotated"
    secret.unlink()
    with pytest.raises(ConfigError, match=r"postgres\.password_file: .*No such file"):
        config.postgres.secret()
