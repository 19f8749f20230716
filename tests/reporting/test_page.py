"""The page: one file, nothing loaded from elsewhere, failures in the right categories."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fixtures.reporting import render
from fixtures.reporting.render import RenderError
from tests.reporting import sample
from tests.reporting.conftest import SampleRun


def data(page: Path, name: str) -> Any:  # noqa: ANN401 - any JSON
    """Return a data file that is embedded in the page."""
    found = re.search(rf'd\("{re.escape(name)}","([^"]*)"\)', page.read_text(encoding="utf8"))
    assert found, f"{name} is not in the page"
    return json.loads(base64.b64decode(found[1]))


def test_nothing_is_loaded_from_elsewhere(page: Path) -> None:
    content = page.read_bytes()
    assert b"googletagmanager" not in content
    assert render.loaded(content) == []
    scripts = re.findall(rb"data:text/(?:css|javascript);base64,([A-Za-z0-9+/=]+)", content)
    assert scripts, "the page's own script is embedded"
    assert [render.loaded(base64.b64decode(script)) for script in scripts] == [[]] * len(scripts)
    assert [path.name for path in page.parent.iterdir() if path.suffix in {".html", ".js"}] == [
        "report.html"
    ]


@pytest.mark.parametrize(
    "content",
    [
        b'<script async src="https://www.googletagmanager.com/gtag/js?id=G-1"></script>',
        b"<img alt='x' src='//h/pixel.gif'>",
        b'<link rel="stylesheet" href="http://h/a.css">',
        b"@font-face { src: url(https://h/font.woff2) }",
        b"fetch('https://h/data.json')",
    ],
)
def test_what_would_be_loaded_is_seen(content: bytes) -> None:
    assert len(render.loaded(content)) == 1


def test_link_for_a_person_to_click_is_allowed() -> None:
    assert render.loaded(b'<a href="https://ci/run/7">run 7</a>') == []


def test_changed_analytics_stop_the_rendering() -> None:
    with pytest.raises(RenderError, match="expected once in the page, found 0 times"):
        render.self_contained("<html></html>")


def test_failures_stand_in_their_categories(page: Path) -> None:
    nodes = data(page, "widgets/categories.json")["nodes"].values()
    names: dict[str, str] = {node["id"]: node["name"] for node in nodes}
    parents = {child: node for node in nodes for child in node.get("childrenIds", [])}

    def category(test: dict[str, Any]) -> str:
        node = test
        while node["id"] in parents:
            node = parents[node["id"]]
        return names[node["id"]]

    found = {node["name"]: category(node) for node in nodes if node["type"] == "tr"}
    assert found == {
        sample.lost_data().title: "Data lost",
        sample.target_missed().title: "Target missed",
        sample.not_verified().title: "Not verified",
        "test_refused": "Interlock refused",
        "test_check": "Integrity check failed",
    }


def test_metrics_have_units_and_history_counts_a_run_once(
    page: Path, sample_run: SampleRun
) -> None:
    current = data(page, "widgets/metrics.json")["current"]
    rows = next(metric for metric in current if metric["key"] == "rpo.rows.pitr.archive_gap")
    assert (rows["value"], rows["unit"], rows["better"]) == (39, "rows", "lower")
    render.render(sample_run.results, page.parent)
    points = (page.parent / "history.jsonl").read_text().splitlines()
    assert len(points) == 1, "rendering the same results again adds no point"
    assert json.loads(points[0])["metrics"]["rto.total.pitr.archive_gap"] == 45.3


def test_without_results_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="holds no Allure results: run `make drill`"):
        render.render(tmp_path, tmp_path)
