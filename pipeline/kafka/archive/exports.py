"""What clients are allowed beside the topics: ACLs, quotas, SCRAM users; or why it is not known.

An empty list means that the cluster has none. What could not be asked says why instead.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from kafka.errors import for_code
from kafka.protocol.admin import (
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ACLResourceType,
    DescribeAclsRequest,
    DescribeClientQuotasRequest,
    DescribeUserScramCredentialsRequest,
)

from pipeline.errors import ServerError
from pipeline.kafka.cluster.momentary import ask_again, name, passes
from pipeline.kafka.cluster.raw import RawReader

NEVER = {
    "SCRAM passwords": "brokers keep salted hashes and show none: re-provision them",
    "certificates and keys": "they are files of the brokers and clients",
}
"""What no protocol exports, and what to do about it."""

Exported = list[dict[str, Any]] | dict[str, str]
"""What was found, or why it is not known."""
_Read = Callable[[Any], list[dict[str, Any]]]
_MECHANISMS = {1: "SCRAM-SHA-256", 2: "SCRAM-SHA-512"}
_NO_SCRAM_USER = 91  # RESOURCE_NOT_FOUND


def everything(reader: RawReader) -> dict[str, Any]:
    """ACLs, quotas and SCRAM users as JSON, each a list or `{"not_exported": reason}`."""
    return {
        "acls": _asked(reader, _every_acl(), _acls),
        "quotas": _asked(reader, DescribeClientQuotasRequest(components=[], strict=False), _quotas),
        "scram_users": _asked(
            reader, DescribeUserScramCredentialsRequest(users=None), _scram_users
        ),
        "never_exported": NEVER,
    }


def _every_acl() -> DescribeAclsRequest:
    """Every ACL, of whatever kind."""
    return DescribeAclsRequest(
        resource_type_filter=ACLResourceType.ANY,
        resource_name_filter=None,
        pattern_type_filter=ACLResourcePatternType.ANY,
        principal_filter=None,
        host_filter=None,
        operation=ACLOperation.ANY,
        permission_type=ACLPermissionType.ANY,
    )


def _asked(reader: RawReader, request: Any, read: _Read) -> Exported:  # noqa: ANN401 - generated
    def ask() -> Any:  # noqa: ANN401 - generated
        told = reader.ask(request)
        if passes(told.error_code):
            raise for_code(told.error_code)(told.error_message or "")
        return told

    try:
        told = ask_again(type(request).__name__, ask)
    except ServerError as refusal:  # a broker older than the request, or that knows no answer now
        return {"not_exported": str(refusal)}
    if told.error_code and told.error_code != _NO_SCRAM_USER:
        reason = name(told.error_code)
        return {"not_exported": f"{reason}: {told.error_message or 'the broker says no more'}"}
    return sorted(read(told), key=repr)


def _acls(told: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - generated
    return [
        {
            "resource": _name(ACLResourceType, each.resource_type),
            "name": each.resource_name,
            "pattern": _name(ACLResourcePatternType, each.pattern_type),
            "principal": acl.principal,
            "host": acl.host,
            "operation": _name(ACLOperation, acl.operation),
            "permission": _name(ACLPermissionType, acl.permission_type),
        }
        for each in told.resources
        for acl in each.acls
    ]


def _quotas(told: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - generated
    return [
        {
            "entity": {part.entity_type: part.entity_name for part in each.entity},
            "limits": {value.key: value.value for value in each.values},
        }
        for each in told.entries or ()
    ]


def _scram_users(told: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - generated
    return [
        {
            "user": each.user,
            "mechanism": _MECHANISMS.get(info.mechanism, str(info.mechanism)),
            "iterations": info.iterations,
        }
        for each in told.results
        for info in each.credential_infos
    ]


def _name(names: type[IntEnum], number: int) -> str:
    """Name a number; one that is newer than this library stays a number, it is not lost."""
    try:
        return names(number).name
    except ValueError:
        return str(number)
