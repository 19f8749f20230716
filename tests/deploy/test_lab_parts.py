"""Parts of the one-node cluster that need neither root nor a cluster."""

import json
import socket
import struct
import tarfile
from pathlib import Path

import pytest

from fixtures.stacks import docker_archive
from fixtures.stacks.kubernetes import names
from fixtures.stacks.kubernetes.forward import Forward

KNOWN = {"postgres.data.svc.cluster.local": "10.214.3.7"}


def question(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


@pytest.mark.parametrize(
    ("name", "kind", "code", "answers"),
    [
        ("postgres.data.svc.cluster.local", 1, 0, 1),
        ("Postgres.Data.svc.cluster.local", 1, 0, 1),
        ("postgres.data.svc.cluster.local", 28, 0, 0),
        ("postgres.data.svc.svc.cluster.local", 1, 3, 0),
        ("example.org", 1, 3, 0),
    ],
    ids=["address", "any case", "no IPv6", "search list", "elsewhere"],
)
def test_names_of_services(name: str, kind: int, code: int, answers: int) -> None:
    told = names.answer(question(name, kind), lambda: KNOWN)
    number, flags, _, found, _, _ = struct.unpack_from("!6H", told)
    assert (number, flags & 0xF, found) == (7, code, answers)
    assert told.endswith(socket.inet_aton("10.214.3.7")) == bool(answers)


def test_an_image_is_of_root_readable_for_all_and_the_same_each_time(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "program").write_text("#!")
    (root / "bin" / "program").chmod(0o700)
    for name in ("one.tar", "other.tar"):
        docker_archive.write("localhost/x:1", [root], {"User": "10001"}, tmp_path / name)
    with tarfile.open(tmp_path / "one.tar") as archive:
        (manifest,) = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr] # a file
        layer = archive.extractfile(manifest["Layers"][0])
        with tarfile.open(fileobj=layer) as tree:
            modes = {entry.name: (entry.uid, oct(entry.mode & 0o777)) for entry in tree}
        told = json.loads(archive.extractfile(manifest["Config"]).read())  # type: ignore[union-attr] # a file
    assert modes == {"bin": (0, "0o755"), "bin/program": (0, "0o755")}
    assert told["config"]["User"] == "10001"
    with tarfile.open(tmp_path / "other.tar") as archive:
        assert manifest["Config"] in archive.getnames()


def test_a_forward_passes_on_both_ways_and_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        forwarding = Forward(("127.0.0.1", 0), server.getsockname())
        with forwarding as forward, socket.create_connection(forward.address) as client:
            served, _ = server.accept()
            with served:
                client.sendall(b"there")
                assert served.recv(9) == b"there"
                served.sendall(b"back")
                assert client.recv(9) == b"back"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(forward.address)
