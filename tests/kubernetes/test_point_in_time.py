"""A database in a pod loses its volume, and comes back from the repository's claim by a job."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from fixtures.stacks.kubernetes import image
from fixtures.stacks.kubernetes.lab import Lab
from pipeline.wait import wait_until
from tests.kubernetes import database
from tests.kubernetes.database import ADDRESS, DATA, SHOP

pytestmark = pytest.mark.kubernetes
PLACE = "shop"
SOON = timedelta(seconds=240)
RECOVER = f"""\
pipeline recover postgres --config /etc/pipeline/here.toml --without-cdc --to "$0" --identity "$1"
code=$?
pg_ctl stop -D {DATA} -m fast
exit $code
"""


class Database:
    """The namespace of one server, and what is asked of it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self._lab.kubectl("-n", PLACE, *words, stdin=stdin)

    def apply(self, *objects: database.Object) -> None:
        told = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(told))

    def scale(self, replicas: int) -> None:
        """Return when it is so: no pod is left, or the one is ready."""
        self.kubectl("scale", "statefulset", SHOP, f"--replicas={replicas}")
        what = ("delete",) if replicas == 0 else ("jsonpath={.status.readyReplicas}=1",)
        thing = "pod/shop-0" if replicas == 0 else f"statefulset/{SHOP}"
        self.kubectl("wait", f"--for={what[0]}", thing, f"--timeout={SOON.seconds}s")

    def sql(self, *statements: str) -> str:
        words = [word for one in statements for word in ("-c", one)]
        said = self.kubectl(
            "exec", "shop-0", "-c", "postgres", "--", "psql", ADDRESS, "-qAtX", *words
        )
        return said.strip()

    def run(self, job: database.Object) -> str:
        """Run it to its end, which is a good one, and give what it said."""
        name = job["metadata"]["name"]
        self.apply(job)

        def unended() -> str | None:
            status = json.loads(self.kubectl("get", f"job/{name}", "-o", "json"))["status"]
            return None if status.get("succeeded") or status.get("failed") else str(status)

        wait_until(f"job {name}", unended, within=SOON, every=timedelta(seconds=1))
        said = self.kubectl("logs", f"job/{name}", "--all-containers")
        status = json.loads(self.kubectl("get", f"job/{name}", "-o", "json"))["status"]
        self.kubectl("delete", "job", name, "--cascade=foreground")  # a pod's claim is kept for it
        assert status.get("succeeded") == 1, said
        return said

    def wait_archived(self) -> None:
        """Return once all that was written is in the repository."""
        segment = self.sql("SELECT pg_walfile_name(pg_switch_wal())")
        done = f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver"

        def waiting() -> str | None:
            return None if self.sql(done) == "t" else f"no {segment} in the archive"

        wait_until("the archive", waiting, within=SOON, every=timedelta(seconds=1))


@pytest.fixture
def shop(lab: Lab) -> Iterator[Database]:
    """A server with a table, and its archive."""
    lab.load(image.server_image())
    lab.kubectl("create", "namespace", PLACE)
    made = Database(lab)
    try:
        made.apply(*database.objects())
        made.scale(1)
        postgres = ADDRESS.replace(f"/{SHOP}", "/postgres")
        words = ("--", "psql", postgres, "-c", f"CREATE DATABASE {SHOP}")
        made.kubectl("exec", "shop-0", "-c", "postgres", *words)
        made.sql("CREATE TABLE orders (id int PRIMARY KEY)")
        yield made
    finally:
        lab.kubectl("delete", "namespace", PLACE)


def test_a_volume_that_is_gone_comes_back_by_a_job(shop: Database) -> None:
    """Scaled to zero, its address refuses; a fresh claim is filled; it is scaled up on that."""
    shop.sql("INSERT INTO orders SELECT generate_series(1, 1000)")
    shop.run(database.job("backup", "pipeline", "backup", "base", *_config("service")))
    shop.sql("INSERT INTO orders SELECT generate_series(1001, 1500)")
    identity = shop.sql("SELECT system_identifier FROM pg_control_system()")
    xid = shop.sql("BEGIN; SELECT pg_current_xact_id(); DROP TABLE orders; COMMIT")
    shop.wait_archived()

    shop.scale(0)
    shop.kubectl("delete", "pvc", "data-shop-0")
    lost = database.claim("data-shop-0")
    shop.apply(lost)
    refused = ("/usr/bin/python3", "-I", "-c", database.REFUSED)
    command = ("sh", "-c", RECOVER, f"before:xid:{xid}", identity)
    shop.run(database.job("recover", *command, first=refused))

    shop.scale(1)
    assert shop.sql("SELECT count(*), max(id) FROM orders") == "1500|1500"
    assert shop.sql("SELECT timeline_id FROM pg_control_checkpoint()") == "2"
    shop.sql("INSERT INTO orders VALUES (1501)")
    shop.wait_archived()


def _config(name: str) -> tuple[str, str]:
    return "--config", f"/etc/pipeline/{name}.toml"
