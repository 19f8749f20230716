"""Access rules of a server, narrowed to a few accounts: each comes by what it always comes by."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

_FIELD = re.compile(r'(?:"[^"]*"|[^\s"#])+|#.*')
_MEMBER = re.compile(r'"[^"]*"|[^,"]+')
_INCLUDES = ("include", "include_if_exists")  # since PostgreSQL 16


def narrowed(path: Path, users: Collection[str]) -> Iterator[str]:
    """Yield the rules of a file that hold for `users`, for nobody but them, in their order.

    What holds for a group, or by a pattern, is left out: who belongs to it only the server knows.
    A file that is not there has none.
    """
    if not path.is_file():
        return
    text = path.read_text(errors="surrogateescape").replace("\\\n", " ")
    for line in text.splitlines():
        fields = [field for field in _FIELD.findall(line) if not field.startswith("#")]
        if len(fields) == 2 and fields[0] in _INCLUDES:
            yield from narrowed(path.parent / fields[1].strip('"'), users)
        elif len(fields) == 2 and fields[0] == "include_dir":
            for one in sorted((path.parent / fields[1].strip('"')).glob("[!.]*.conf")):
                yield from narrowed(one, users)
        elif len(fields) > 3:
            kind, database, accounts, *rest = fields
            named = _MEMBER.findall(accounts)
            for user in sorted(users):
                if {"all", user, f'"{user}"'} & set(named):
                    yield " ".join((kind, database, f'"{user}"', *rest))
