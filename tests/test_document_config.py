"""docs/configuration.md is what the models say, and docs/quickstart.md has a file that loads."""

import re
from pathlib import Path

import pytest

from pipeline import config
from tools import document_config

QUICKSTART = document_config.DOCUMENT.with_name("quickstart.md")


def test_the_document_is_generated() -> None:
    found = document_config.DOCUMENT.read_text()
    assert found == document_config.markdown(), "run `python -m tools.document_config`"


def test_no_meaning_is_left_of_a_key_that_is_gone() -> None:
    assert set(document_config.MEANINGS) <= set(document_config.keys())


@pytest.mark.parametrize("which", ["as it stands", "on Debian"])
def test_the_file_in_the_quickstart_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, section = re.findall(r"```toml\n(.*?)```", QUICKSTART.read_text(), re.DOTALL)
    rest = whole[whole.index("[kafka]") :]
    text = {"as it stands": whole, "on Debian": f"{section}\n{rest}"}[which]
    (tmp_path / "pipeline.toml").write_text(text)
    loaded = config.load(Path("pipeline.toml"))
    assert loaded.scratch is not None
    assert loaded.postgres.host == {"as it stands": "127.0.0.1"}.get(which, "/var/run/postgresql")
    assert loaded.objectives.point_in_time.rto.total_seconds() == 30 * 60
