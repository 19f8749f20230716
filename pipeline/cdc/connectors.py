"""Kafka Connect over REST: connectors, their tasks and their source offsets (KIP-875)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx

from pipeline.errors import ServerError
from pipeline.rest import NOT_FOUND, POLL, Rest
from pipeline.wait import wait_until

REBALANCING = 409


class ConnectorMissing(ServerError):
    """Connect answers 404: no such connector, or no worker has taken it up yet."""


@dataclass(frozen=True)
class TaskStatus:
    """One task as the worker reports it; `trace` holds the stack trace of a failed one."""

    id: int
    state: str
    worker: str
    trace: str = ""

    @property
    def cause(self) -> str:
        """The trace in a line: what ended the task, and behind it what caused that."""
        first, *more = self.trace.strip().splitlines() or [""]
        causes = [line.strip() for line in more if line.startswith("Caused by:")]
        return " ".join([first, *causes[-1:]])


@dataclass(frozen=True)
class ConnectorStatus:
    """A connector and its tasks: RUNNING with a FAILED task moves no data."""

    name: str
    state: str
    tasks: tuple[TaskStatus, ...]

    @property
    def trouble(self) -> str | None:
        """Why this connector is not streaming, or None when every task is RUNNING."""
        for task in self.tasks:
            if task.state != "RUNNING":
                return f"task {task.id} is {task.state} {task.cause}".rstrip()
        if self.state != "RUNNING":
            return f"connector is {self.state}"
        return None if self.tasks else "connector is RUNNING without a task"


@dataclass(frozen=True)
class Described:
    """A connector as one request tells it: settings, status, and how many tasks it asked for."""

    config: dict[str, str]
    status: ConnectorStatus
    wanted: int


@dataclass(frozen=True)
class ConnectorOffset:
    """One stored source offset: the partition that it belongs to, and the position."""

    partition: dict[str, Any]
    offset: dict[str, Any]


class ConnectClient(Rest):
    """The REST API of one Connect cluster; any worker answers for all."""

    def names(self) -> list[str]:
        return sorted(self._call("GET", "/connectors"))

    def described(self) -> dict[str, Described]:
        """Describe all connectors in one request; one that no worker has told of is left out."""
        found = self._call("GET", "/connectors?expand=info&expand=status")
        return {
            name: Described(
                told["info"]["config"], _status(name, told["status"]), len(told["info"]["tasks"])
            )
            for name, told in sorted(found.items())
        }

    def topics(self, name: str) -> list[str]:
        """Topics that the connector has written to, as its workers saw it (KIP-558)."""
        return sorted(self._call("GET", f"{_path(name)}/topics")[name]["topics"])

    def worker(self) -> dict[str, str]:
        """Version of the workers, and the id of their Kafka cluster."""
        return dict(self._call("GET", "/"))

    def plugins(self) -> dict[str, str]:
        """Versions of the connectors that are installed, by class."""
        found = self._call("GET", "/connector-plugins")
        return {one["class"]: str(one.get("version")) for one in found}

    def config(self, name: str) -> dict[str, str]:
        return dict(self._call("GET", f"{_path(name)}/config"))

    def create(self, name: str, config: Mapping[str, str], *, stopped: bool = False) -> None:
        """Create; `stopped` (KIP-980, Kafka 3.7) leaves room to look at its offsets first."""
        body = {
            "name": name,
            "config": dict(config),
            "initial_state": "STOPPED" if stopped else "RUNNING",
        }
        self._call("POST", "/connectors", body)

    def put_config(self, name: str, config: Mapping[str, str]) -> None:
        """Create or change; the run state of an existing connector stays as it is."""
        self._call("PUT", f"{_path(name)}/config", dict(config))

    def status(self, name: str) -> ConnectorStatus:
        return _status(name, self._call("GET", f"{_path(name)}/status"))

    def tasks(self, name: str) -> int:
        """How many tasks the connector asked for; one that no worker runs has no status."""
        return len(self._call("GET", f"{_path(name)}/tasks"))

    def pause(self, name: str) -> None:
        self._call("PUT", f"{_path(name)}/pause")

    def stop(self, name: str) -> None:
        """Shut the tasks down; unlike pause it gives the slot free and opens the offsets."""
        self._call("PUT", f"{_path(name)}/stop")

    def resume(self, name: str) -> None:
        self._call("PUT", f"{_path(name)}/resume")

    def restart(self, name: str, *, only_failed: bool = True) -> None:
        """Restart the connector and its tasks: a failed task stays failed until somebody does."""
        failed = str(only_failed).lower()
        self._call("POST", f"{_path(name)}/restart?includeTasks=true&onlyFailed={failed}")

    def delete(self, name: str) -> None:
        """Remove the connector. Its offsets stay, and a namesake would resume from them."""
        self._call("DELETE", _path(name))

    def offsets(self, name: str) -> list[ConnectorOffset]:
        answer = self._call("GET", f"{_path(name)}/offsets")
        return [
            ConnectorOffset(stored["partition"], stored["offset"])
            for stored in answer["offsets"]
            if stored["offset"] is not None  # how a deleted one shows for a while
        ]

    def delete_offsets(self, name: str) -> None:
        """Forget every offset of a STOPPED connector, and read back that none is left."""
        self._call("DELETE", f"{_path(name)}/offsets", repeatable=True)
        if left := self.offsets(name):
            raise ServerError(f"{self.url}: {name} still has offsets after DELETE: {left}")

    def patch_offsets(self, name: str, offsets: Sequence[ConnectorOffset]) -> None:
        """Set offsets of a STOPPED connector; forwards loses events, backwards repeats them."""
        body = {"offsets": [{"partition": o.partition, "offset": o.offset} for o in offsets]}
        self._call("PATCH", f"{_path(name)}/offsets", body)

    def wait_stopped(self, name: str, *, within: timedelta = timedelta(seconds=60)) -> None:
        """Return once the connector is STOPPED and no task of it is left."""

        def trouble(status: ConnectorStatus) -> str | None:
            if status.state == "STOPPED" and not status.tasks:
                return None
            return f"connector is {status.state} with {len(status.tasks)} task(s)"

        self._wait(name, "stopped", trouble, within)

    def wait_running(self, name: str, *, within: timedelta = timedelta(seconds=60)) -> None:
        """Return once the connector and every task of it are RUNNING."""
        self._wait(name, "running", lambda status: status.trouble, within)

    def _wait(
        self,
        name: str,
        what: str,
        trouble: Callable[[ConnectorStatus], str | None],
        within: timedelta,
    ) -> None:
        def reason() -> str | None:
            try:
                return trouble(self.status(name))
            except ConnectorMissing as error:  # right after its creation there is no status yet
                return str(error)

        wait_until(f"{self.url}: {name} {what}", reason, within=within, every=POLL)

    def _busy(self, answer: httpx.Response) -> bool:
        """Whether the workers are rebalancing."""
        return answer.status_code == REBALANCING and "already exists" not in answer.text

    def _refused(self, told: str, answer: httpx.Response) -> ServerError:
        return (ConnectorMissing if answer.status_code == NOT_FOUND else ServerError)(told)


def _status(name: str, told: Mapping[str, Any]) -> ConnectorStatus:
    tasks = (
        TaskStatus(task["id"], task["state"], task["worker_id"], task.get("trace", ""))
        for task in told["tasks"]
    )
    return ConnectorStatus(name, told["connector"]["state"], tuple(tasks))


def _path(name: str) -> str:
    return f"/connectors/{quote(name, safe='')}"
