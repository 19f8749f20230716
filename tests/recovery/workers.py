"""A Connect worker as far as one asks it for its connectors and their settings."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Settings = Mapping[str, str]
Topics = Mapping[str, Sequence[str]]
"""Topics that connectors have written to, by connector; of one that is not named none are told."""


class _Worker(ThreadingHTTPServer):
    connectors: Mapping[str, Settings]
    topics: Topics
    state: str
    path: str


class _Answer(BaseHTTPRequestHandler):
    server: _Worker

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        _, *parts = path.split("/")
        body: Any = self._asked(*parts[1:]) if parts[:1] == [self.server.path] else None
        if query.startswith("expand") and body is not None:
            body = {name: self._whole(name) for name in body}
        content = json.dumps(body).encode()
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _asked(self, name: str = "", what: str = "") -> Any:  # noqa: ANN401 - as it is sent
        if not name:
            return list(self.server.connectors)
        if name not in self.server.connectors:
            return None
        if what == "topics":
            return {name: {"topics": told}} if (told := self.server.topics.get(name)) else None
        if what == "offsets":
            return {"offsets": []}
        if what == "status":
            state = {"state": self.server.state, "worker_id": "one"}
            return {"name": name, "connector": state, "tasks": [{"id": 0, **state}]}
        return self.server.connectors[name]

    def _whole(self, name: str) -> Any:  # noqa: ANN401 - as it is sent
        status, config = self._asked(name, "status"), self._asked(name, "config")
        return {"info": {"config": config, "tasks": status["tasks"]}, "status": status}

    def log_message(self, *_line: object) -> None: ...


@contextmanager
def worker(
    connectors: Mapping[str, Settings],
    state: str = "RUNNING",
    path: str = "connectors",
    topics: Topics | None = None,
) -> Iterator[str]:
    """Answer at the URL that the block is given; nothing is found below another path."""
    with _Worker(("127.0.0.1", 0), _Answer) as serving:
        serving.connectors, serving.state, serving.path = connectors, state, path
        serving.topics = topics or {}
        threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
