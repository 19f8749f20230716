"""The matrix of checks and faults: who saw what, and who saw it as well."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from allure_commons.logger import AllureFileLogger
from allure_commons.model2 import Attachment, Label, Status, TestResult
from allure_commons.types import AttachmentType, LabelType
from allure_commons.utils import md5, now, uuid4

from checks.check import Outcome, worst
from checks.verdicts import Verdict

TITLE = "Which check saw which fault"


def matrix_lines(proofs: Sequence[Verdict]) -> Iterator[str]:
    """Return the matrix as text: below each check its faults, the reason, who saw them as well."""
    for check in sorted({proof.check for proof in proofs}):
        yield check
        for proof in (proof for proof in proofs if proof.check == check):
            seen = "seen  " if proof.outcome is Outcome.PASS else "MISSED"
            also = ", ".join(proof.also_seen_by)
            reason = f"   as {proof.says!r}" if proof.says else ""
            yield f"  {seen}  {proof.fault}{reason}{f'   also by {also}' if also else ''}"


def write_matrix(folder: Path, proofs: Sequence[Verdict], seed: int) -> list[Path]:
    """Write matrix.txt for people and matrix.json for programs."""
    folder.mkdir(parents=True, exist_ok=True)
    text, data = folder / "matrix.txt", folder / "matrix.json"
    text.write_text("\n".join([f"seed {seed}", *matrix_lines(proofs)]) + "\n")
    rows = [
        {
            "check": proof.check,
            "fault": proof.fault,
            "detected": proof.outcome is Outcome.PASS,
            "damage": proof.damage,
            "reason": proof.says,
            "also_seen_by": proof.also_seen_by,
        }
        for proof in proofs
    ]
    data.write_text(json.dumps({"seed": seed, "proofs": rows}, indent=1) + "\n")
    return [text, data]


def attach_matrix(results: Path, files: Sequence[Path], proofs: Sequence[Verdict]) -> None:
    """Add a result of its own to Allure's: no single test knows the whole matrix."""
    proven = worst(proof.outcome for proof in proofs) is Outcome.PASS
    result = TestResult(
        uuid=uuid4(),
        name=TITLE,
        fullName="checks.matrix",
        historyId=md5("checks.matrix"),
        testCaseId=md5("checks.matrix"),
        status=Status.PASSED if proven else Status.FAILED,
        start=now(),
        stop=now(),
        labels=[Label(LabelType.EPIC, "Proven checks"), Label(LabelType.FEATURE, "Matrix")],
    )
    for file in files:
        kind = AttachmentType.JSON if file.suffix == ".json" else AttachmentType.TEXT
        source = f"{uuid4()}-attachment.{kind.extension}"
        shutil.copyfile(file, results / source)
        result.attachments.append(Attachment(file.name, source, kind.mime_type))
    AllureFileLogger(str(results)).report_result(result)
