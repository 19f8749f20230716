"""`.venv` of a clone: the packages that clones share, and the two programs of this clone.

The programs name the clone that they belong to, so that they run its code from any folder, for any
user, by PATH after `. .venv/bin/activate` and by their full path in an archive_command.
Only the standard library is used here: tools/bootstrap.py needs it before anything is installed.
"""

import shlex
from pathlib import Path

# -P: not what happens to lie in the working folder; by way of sh, as a path in #! holds no space
PIPELINE = """\
#!/bin/sh
exec {python} -P -c 'import sys
sys.path.insert(0, sys.argv.pop(1))
sys.argv[0] = "pipeline"
from pipeline.__main__ import main
main()' {clone} "$@"
"""
WAL = """\
#!/bin/sh
for python in {python} /usr/bin/python3; do  # the owner of a server may not enter a home of root
    test -x "$python" && exec "$python" -S -E {clone}/pipeline/postgres/wal/wal_command.py "$@"
done
echo "pipeline-wal: no Python that $(id -un) may execute: {python}, /usr/bin/python3" >&2
exit 200
"""
FORM = PIPELINE + WAL


def lend(shared: Path, clone: Path, own: Path) -> None:
    """Fill `own` with links into the shared environment, and with what belongs to the clone."""
    programs = own / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("pyvenv.cfg", "lib"):
        _link(own / name, shared / name)
    for program in (shared / "bin").iterdir():
        if program.name.startswith("activate"):  # it names the folder that it stands in
            text = program.read_text().replace(str(shared), str(own))
            (programs / program.name).write_text(text)
        else:
            _link(programs / program.name, program)
    words = {
        "python": shlex.quote(str(shared / "bin" / "python")),
        "clone": shlex.quote(str(clone)),
    }
    for name, form in (("pipeline", PIPELINE), ("pipeline-wal", WAL)):
        (programs / name).write_text(form.format(**words))
        (programs / name).chmod(0o755)


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)  # an attempt before was interrupted
    link.symlink_to(target)
