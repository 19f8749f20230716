"""A PostgreSQL in a pod of its own, with a claim for its data and one for the repository."""

from typing import Any

from fixtures.stacks.kubernetes import image

SHOP, PASSWORD = "shop", "of-the-lab"
LABELS = {"app": SHOP}
DATA = "/data/pgdata"
ADDRESS = f"postgresql://postgres:{PASSWORD}@127.0.0.1/{SHOP}"
ARCHIVE = "/usr/bin/python3 -S -E /opt/pipeline/pipeline/postgres/wal/wal_command.py"
CONFIG = """\
[postgres]
host = "{host}"
dbname = "shop"
password_file = "/run/secrets/postgres/password"
data = "/data/pgdata"
[repository]
path = "/backup/repository"
"""
SERVE = f"""\
set -e
if ! test -s {DATA}/PG_VERSION; then
  initdb -D {DATA} -U postgres --pwfile=/run/secrets/postgres/password --data-checksums \\
    --auth=scram-sha-256 --locale=C --encoding=UTF8
  printf '%s\\n' "listen_addresses = '*'" "wal_level = logical" "archive_mode = on" \\
    "archive_command = '{ARCHIVE} push /backup/repository %p'" "shared_buffers = 32MB" \\
    >> {DATA}/postgresql.conf
  printf '%s\\n' "host all all all scram-sha-256" "host replication all all scram-sha-256" \\
    >> {DATA}/pg_hba.conf
fi
exec postgres -D {DATA}
"""
REFUSED = f"""\
import socket, sys
try:
    socket.create_connection(("{SHOP}", 5432), timeout=10)
except ConnectionRefusedError:
    sys.exit(0)
sys.exit("the old server's address does not refuse")
"""
Object = dict[str, Any]


def claim(name: str) -> Object:
    size = {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]}
    return _object("v1", "PersistentVolumeClaim", name, spec=size)


def objects() -> list[Object]:
    """Everything but jobs; the data's claim is made by the StatefulSet."""
    ready = {"exec": {"command": ["pg_isready", "-q", "-h", "127.0.0.1"]}}
    serving = _container("postgres", "sh", "-c", SERVE) | {"readinessProbe": ready}
    init = _container("init", "pipeline", "init", "--config", "/etc/pipeline/here.toml")
    spec: Object = {
        "serviceName": SHOP,
        "replicas": 1,
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": _pod([init], serving)},
        "volumeClaimTemplates": [claim("data")],
    }
    service = {"selector": LABELS, "ports": [{"port": 5432}]}
    toml = {f"{name}.toml": CONFIG.format(host=host) for name, host in HOSTS.items()}
    return [
        _object("v1", "Secret", SHOP, stringData={"password": PASSWORD}),
        _object("v1", "ConfigMap", SHOP, data=toml),
        claim("repository"),
        _object("v1", "Service", SHOP, spec=service),
        _object("apps/v1", "StatefulSet", SHOP, spec=spec),
    ]


HOSTS = {"here": "127.0.0.1", "service": SHOP}


def job(name: str, *command: str, first: tuple[str, ...] = ()) -> Object:
    """One that sees the repository and the data's claim, as the server does."""
    before = [_container("first", *first)] if first else []
    spec = _pod(before, _container("pipeline", *command)) | {"restartPolicy": "Never"}
    spec["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data-shop-0"}})
    return _object("batch/v1", "Job", name, spec={"backoffLimit": 0, "template": {"spec": spec}})


def _object(version: str, kind: str, name: str, **more: object) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}


def _container(name: str, *command: str) -> Object:
    places = {
        "data": "/data",
        "repository": "/backup",
        "tmp": "/tmp",  # noqa: S108 - in the pod
        "password": "/run/secrets/postgres",
        "config": "/etc/pipeline",
    }
    return {
        "name": name,
        "image": image.server_tag(),
        "imagePullPolicy": "Never",
        "command": list(command),
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in places.items()],
    }


def _pod(first: list[Object], container: Object) -> Object:
    user = image.USER
    # else each start gives the group rights in the data folder, and PostgreSQL refuses such a one
    once = {"fsGroup": user, "fsGroupChangePolicy": "OnRootMismatch"}
    return {
        "securityContext": {"runAsUser": user, "runAsGroup": user, **once},
        "terminationGracePeriodSeconds": 20,
        "initContainers": first,
        "containers": [container],
        "volumes": [
            {"name": "repository", "persistentVolumeClaim": {"claimName": "repository"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "password", "secret": {"secretName": SHOP}},
            {"name": "config", "configMap": {"name": SHOP}},
        ],
    }
