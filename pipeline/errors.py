"""What can go wrong, split only where a caller acts differently."""

import re
from collections.abc import Sequence

_LOGIN = re.compile(r"(?<=://)[^\s/?#'\"]*@")


def without_logins(text: str) -> str:
    """Leave user and password out of every URL in a text."""
    return _LOGIN.sub("", text)


class PipelineError(Exception):
    """Any failure of this package. The message says what, where, expected and found."""


class ConfigError(PipelineError):
    """The configuration is missing something, or names something that does not exist."""


class StoreError(PipelineError):
    """The repository's storage refused or failed."""


class ObjectMissing(StoreError):
    """No object stands under the key. Only this may be read as "there is none"."""

    def __init__(self, key: str, where: str) -> None:
        super().__init__(f"no object {key!r} in {where}")
        self.key = key
        self.where = where


class NoBackup(ObjectMissing):
    """No backup set will do; `passed` says why each that is there does not."""

    def __init__(self, what: str, where: str, passed: Sequence[str] = ()) -> None:
        super().__init__(what, where)
        self.passed = tuple(passed)
        self.args = ("\n  ".join((f"no {what} in {where}", *passed)),)


class ObjectExists(StoreError):
    """An object with other content already stands under the key; nothing was overwritten."""

    def __init__(self, key: str, where: str) -> None:
        super().__init__(
            f"{key!r} exists in {where} with other content: objects are written once. "
            "Two writers share this repository, or one object was changed after it was written"
        )
        self.key = key
        self.where = where


class BackupError(PipelineError):
    """A backup could not be taken, or what was written is not a backup set."""


class RestoreError(PipelineError):
    """Data could not be brought back."""


class PlaceTaken(RestoreError):
    """Something stands where a restore would write: no other backup would help."""


class BeginAgain(RestoreError):
    """Going on with this recovery cannot help; the message says with what to begin instead."""


class TargetSpoilt(BeginAgain):
    """The topic that a replay writes to is no longer what it made: somebody else wrote to it."""


class TargetUnreachable(RestoreError):
    """The recovery target cannot be reached from this repository; nothing was opened."""


class LossNotAccepted(RestoreError):
    """Reaching less than the expected end needs the operator's word, by name: `option`."""

    def __init__(self, told: str, option: str = "") -> None:
        all_the_same = f". To end there all the same, say so by name: {option}" if option else ""
        super().__init__(f"{told}{all_the_same}")
        self.option = option


class RecoveryRefused(PipelineError):
    """An interlock holds: the recovery would replace something nobody named."""


class ServerError(PipelineError):
    """A server did not start, answer or reach the state that was waited for."""


class ToolError(PipelineError):
    """A program of PostgreSQL's ended with an error."""

    def __init__(self, program: str, code: int, output: str) -> None:
        tail = "\n".join(output.strip().splitlines()[-20:])
        super().__init__(f"{program} ended with exit code {code}:\n{tail}")
        self.program = program
        self.code = code
        self.output = output
