"""`python3 -m tools.bootstrap`: bring the project's Python packages into the cache, once.

Needs Python 3.11 and its standard library: not pip, not ensurepip, not venv. The clone gets a link
`.venv`, so that `. .venv/bin/activate` works as everywhere, with the commands `pipeline` and
`pipeline-wal` of this clone.
`python3 -m tools.bootstrap uv …` runs the pinned uv, for example `uv lock --check`.
"""

import hashlib
import html
import importlib.util
import os
import platform
import re
import ssl
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from functools import partial
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - the one module that an older Python may meet
    sys.exit(
        f"setup: Python 3.11 or newer is needed, {sys.executable} is {platform.python_version()}. "
        "Name another one: make PYTHON=/path/to/python3.11"
    )

from fixtures import cache
from fixtures.cache import Progress, SetupError
from tools import clone_environment

CLONE = Path(__file__).parent.parent
PYTHON = Path(sys.executable).resolve()  # also when we run inside an environment
UV = "0.13.9"
INSTALL = ("--require-hashes", "--compile-bytecode")  # else every command may compile it all anew
WHEELS = {  # the file's tags and hash, by system and machine
    ("Linux", "x86_64"): (
        "manylinux_2_17_x86_64.manylinux2014_x86_64",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    ("Linux", "aarch64"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("Darwin", "arm64"): (
        "macosx_11_0_arm64",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    ),
}


def main() -> None:
    """Make `.venv` lead to the packages that uv.lock names, or run uv."""
    try:
        if sys.argv[1:2] == ["uv"]:
            sys.exit(_uv_on_the_lock(sys.argv[2:]))
        own = CLONE / ".venv"
        if own.is_dir() and not own.is_symlink():
            _say(f"{own} is your own: left as it is (remove it to get the locked packages)")
            return
        with cache.audible(_say) as say:
            shared = cache.ensure(cache.folder() / "venvs" / _key(), partial(_fill, say), say)
            mine = cache.folder() / "clones" / _clone_key(shared)
            cache.ensure(mine, partial(clone_environment.lend, shared, CLONE), say)
        if not own.is_symlink() or own.readlink() != mine:
            fresh = CLONE / f".venv.{os.getpid()}"
            fresh.symlink_to(mine)
            fresh.replace(own)  # at once: another run may be using the old one
    except SetupError as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        sys.exit("setup: interrupted; the next run goes on from here")


def _uv_on_the_lock(arguments: list[str]) -> int:
    """Run uv for a person; uv.lock must name the public index, whichever one they use."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}
    }
    command = [str(pinned_uv(_say)), *arguments, "--python", str(PYTHON)]
    return subprocess.run(command, cwd=CLONE, env=environment, check=False).returncode


def pinned_uv(say: Progress = cache.quiet) -> Path:
    """The program, brought into the cache once."""
    folder = cache.folder() / "tools" / f"uv-{UV}"
    return cache.ensure(folder, partial(_fetch_uv, say), say) / "uv"


def _key() -> str:
    """The packages, the Python that they are for, and how they are installed."""
    digest = hashlib.sha256((CLONE / "uv.lock").read_bytes())
    digest.update(f"{PYTHON} {sys.version} {sysconfig.get_platform()} {INSTALL}".encode())
    return digest.hexdigest()[:16]


def _clone_key(shared: Path) -> str:
    """The clone by its path: moved elsewhere it gets programs that name the new one."""
    made_of = f"{shared}\n{CLONE}\n{clone_environment.FORM}"
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def _fill(say: Progress, venv: Path) -> None:
    """Create the environment, and put the locked packages into it."""
    uv = pinned_uv(say)
    wanted = venv / "requirements.txt"
    say(f"installing the locked packages into {venv}")
    _run(uv, "venv", "--allow-existing", "--python", PYTHON, venv)
    # not `uv sync`: it would take the addresses from the lock, and pass by a chosen index
    _run(uv, "export", "--quiet", "--frozen", "--no-emit-project", "--output-file", wanted)
    _run(uv, "pip", "sync", *INSTALL, "--python", venv / "bin" / "python", wanted)


def _fetch_uv(say: Progress, folder: Path) -> None:
    """Take the program out of its wheel, which is a zip file."""
    try:
        tags, sha256 = WHEELS[platform.system(), platform.machine()]
    except KeyError:
        raise SetupError(
            f"no pinned uv for {platform.system()} {platform.machine()}: create .venv yourself "
            "with `uv sync --no-install-project` or pip"
        ) from None
    wheel = folder / f"uv-{UV}-py3-none-{tags}.whl"
    say(f"fetching {wheel.name}")
    if importlib.util.find_spec("pip"):  # knows the user's proxies, mirrors and passwords
        _fetch_with_pip(folder)
    else:
        _fetch_from_index(wheel)
    if not wheel.exists() or (found := _sha256(wheel)) != sha256:
        wheel.unlink(missing_ok=True)
        raise SetupError(f"{wheel}: expected sha256 {sha256}, found {found}")
    with zipfile.ZipFile(wheel) as archive:
        (folder / "uv").write_bytes(archive.read(f"uv-{UV}.data/scripts/uv"))
    (folder / "uv").chmod(0o755)
    wheel.unlink()


def _fetch_with_pip(folder: Path) -> None:
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    _run(sys.executable, "-m", "pip", "download", *options, f"uv=={UV}")


def _fetch_from_index(wheel: Path) -> None:
    """Download by the simple API, https://peps.python.org/pep-0503/, which every index has."""
    page = f"{_index().rstrip('/')}/uv/"
    try:
        with urllib.request.urlopen(page, timeout=60) as answer:  # noqa: S310 - the user's index
            text = answer.read().decode()
        link = re.search(rf'href="([^"]*/{re.escape(wheel.name)}[^"]*)"', text)
        if link is None:
            raise SetupError(f"{_shown(page)} has no {wheel.name}")
        url = urllib.parse.urljoin(page, html.unescape(link[1]))
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - the index named it
            wheel.write_bytes(answer.read())
    except urllib.error.URLError as error:
        raise SetupError(
            f"cannot reach {_shown(page)}: {error.reason}. Check the network or set PIP_INDEX_URL; "
            "a certificate that cannot be verified needs the package ca-certificates"
        ) from error


def _index() -> str:
    chosen = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL")
    return chosen or "https://pypi.org/simple"


def _shown(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)  # an index may carry a password


def _run(*command: str | Path) -> None:
    """Run pip or uv; the end of what it says is the reason where it fails."""
    environment = {
        "UV_CACHE_DIR": str(cache.folder() / "uv"),  # beside the environments: files are linked
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_SYSTEM_CERTS": str(_has_certificates()).lower(),
        **os.environ,
        "UV_DEFAULT_INDEX": _index(),
    }
    run = subprocess.run(
        command, cwd=CLONE, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        reason = "\n".join((run.stdout + run.stderr).strip().splitlines()[-8:])
        raise SetupError(
            f"`{' '.join(map(str, command))}` ended with exit code {run.returncode}:\n{reason}\n"
            f"The package index is {_shown(_index())} (PIP_INDEX_URL changes it), the folder "
            f"{cache.folder()} (RECOVERY_DRILLS_CACHE changes it). The next run goes on from here"
        )


def _has_certificates() -> bool:
    """Whether the system has a certificate store; uv has one of its own for where it has none."""
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())))


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _say(line: str) -> None:
    sys.stderr.write(f"setup: {line}\n")


if __name__ == "__main__":
    main()
