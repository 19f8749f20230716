"""What the accounts of the namespace may do, and where its pods may connect to."""

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.kubernetes_config import addresses
from checks.kubernetes_objects import Namespace, name_of
from fixtures.faults.manifests import edited
from fixtures.kubernetes_material import NAMESPACE
from fixtures.manifests import DEPLOY, rendered
from fixtures.scratch import Damage, Scratch

Right = tuple[str, str, str, str]
"""API group, resource, name of one object or "", verb."""
EVERYBODY = {"system:authenticated", "system:serviceaccounts", "system:unauthenticated"}
ITS_OWN = {"kubernetes.io/bootstrapping": "rbac-defaults"}
"""The label of bindings that the API server makes, so that everybody can look at the cluster."""


@check(
    "kubernetes.rights-are-least",
    on=Namespace,
    advice="Remove the binding that is named, or apply deploy/overlays/ again where a right is "
    "missing. Backups need no right at all in Kubernetes.",
)
def rights_are_least(namespace: Namespace) -> Iterator[Observation]:
    """Each account has the rights that deploy/ lists, no wildcard among them, and no others."""
    expected = _listed()
    used = {pod.get("serviceAccountName", "default") for _, pod in namespace.templates()}
    for account in sorted({"default", *expected, *used}):
        found, wanted = _rights(namespace, account), expected.get(account, set())
        told = [f"it may {_said(each)}" for each in sorted(found - wanted)]
        told += [f"it may not {_said(each)}, which it needs" for each in sorted(wanted - found)]
        more = f", and {len(told) - 5} more" if len(told) > 5 else ""
        yield Observation(f"ServiceAccount {account}", "; ".join(told[:5]) + more or None)


def _said(right: Right) -> str:
    group, resource, name, verb = right
    return f"{verb} {resource}{f'.{group}' if group else ''}{f' {name}' if name else ''}"


def _listed() -> dict[str, set[Right]]:
    """Give the rights that the manifests of this version give, by account."""
    objects = rendered(DEPLOY / "base")
    made = {(one["kind"], name_of(one)): one for one in objects}
    found: dict[str, set[Right]] = {name: set() for kind, name in made if kind == "ServiceAccount"}
    for (kind, _), one in made.items():
        if kind in {"RoleBinding", "ClusterRoleBinding"}:
            role = made[one["roleRef"]["kind"], one["roleRef"]["name"]]
            for subject in one["subjects"]:
                found[subject["name"]] |= set(_of_role(role))
    return found


def _rights(namespace: Namespace, account: str) -> set[Right]:
    found = set[Right]()
    for kind, where in (("RoleBinding", ""), ("ClusterRoleBinding", None)):
        for binding in namespace.all(kind, where):
            if any(_is(each, account, namespace.name) for each in binding.get("subjects", [])):
                reference = binding["roleRef"]
                if _is_its_own(binding):
                    continue
                scope = "" if reference["kind"] == "Role" else None
                roles = namespace.all(reference["kind"], scope)
                for role in (one for one in roles if name_of(one) == reference["name"]):
                    found |= set(_of_role(role))
    return found


def _is_its_own(binding: Mapping[str, Any]) -> bool:
    labels = binding["metadata"].get("labels", {})
    return ITS_OWN.items() <= labels.items() and name_of(binding).startswith("system:")


def _is(subject: Mapping[str, str], account: str, namespace: str) -> bool:
    if subject["kind"] == "Group":
        return subject["name"] in {*EVERYBODY, f"system:serviceaccounts:{namespace}"}
    return (subject["kind"], subject["name"], subject.get("namespace")) == (
        "ServiceAccount",
        account,
        namespace,
    )


def _of_role(role: Mapping[str, Any]) -> Iterator[Right]:
    for rule in role.get("rules") or ():
        for verb in rule["verbs"]:
            for resource in rule.get("resources", rule.get("nonResourceURLs", ())):
                for group in rule.get("apiGroups", ("",)):
                    yield from (
                        (group, resource, name, verb) for name in rule.get("resourceNames", ("",))
                    )


@check(
    "kubernetes.network-closed",
    on=Namespace,
    advice="Apply deploy/overlays/ again, and put servers that moved into its network.yaml. "
    "Policies are read here as they are written: whether the network of the cluster enforces them "
    "is shown by a connection that it refuses, docs/kubernetes.md.",
)
def network_closed(namespace: Namespace) -> Iterator[Observation]:
    """Policies let nothing in, and out only to names and to the ports of the pipeline's servers."""
    policies = namespace.all("NetworkPolicy")
    for way in ("Ingress", "Egress"):
        closed = any(_closes(one, way) for one in policies)
        yield Observation(way, None if closed else "no policy closes it for every pod")
    allowed = [port for one in policies for port in _opened(one)]
    wanted = {("UDP", 53), ("TCP", 53), *(("TCP", port) for _, port in addresses(namespace))}
    for protocol, port in sorted(wanted):
        found = (protocol, port) in allowed
        shut = None if found else "no policy lets every pod out to it"
        yield Observation(f"{protocol} {port}", shut)
    for one in policies:
        wide = [each for each in _rules(one) if _is_wide(each)]
        told = "it lets pods out to every address" if wide else None
        let_in = one["spec"].get("ingress")
        yield Observation(
            f"NetworkPolicy {name_of(one)}", told or (f"it lets in {let_in}" if let_in else None)
        )


def _closes(one: Mapping[str, Any], way: str) -> bool:
    spec = one["spec"]
    return spec.get("podSelector") == {} and way in spec.get("policyTypes", ["Ingress"])


def _rules(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = one["spec"].get("egress") or []
    return found


def _opened(one: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Give what a policy opens for every pod."""
    if one["spec"].get("podSelector") == {}:
        for rule in _rules(one):
            for port in rule.get("ports", ()):
                yield port.get("protocol", "TCP"), port.get("port", 0)


def _is_wide(rule: Mapping[str, Any]) -> bool:
    to = rule.get("to")
    blocks = [each.get("ipBlock", {}).get("cidr") for each in to or ()]
    return not to or not rule.get("ports") or bool({"0.0.0.0/0", "::/0"} & set(blocks))


Cluster = Scratch[Namespace]


@rights_are_least.detects
def role_widened(scratch: Cluster, _rng: Random) -> Damage:
    """Reading one Secret did not work, so all of them were allowed."""
    with edited(scratch) as objects:
        rules = objects.one("Role", "inspector")["rules"]
        rules.append({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]})
    return Damage("ServiceAccount inspector", "it may list secrets", says="list secrets")


@rights_are_least.detects
def bound_to_everything(scratch: Cluster, _rng: Random) -> Damage:
    """`kubectl create clusterrolebinding`, to make an error go away."""
    subject = {"kind": "ServiceAccount", "name": "backup", "namespace": NAMESPACE}
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    with edited(scratch) as objects:
        objects.items += [
            {"kind": "ClusterRole", "metadata": {"name": "cluster-admin"}, "rules": rules},
            {
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "quick"},
                "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [subject],
            },
        ]
    return Damage("ServiceAccount backup", "it may do everything", says="it may *")


@rights_are_least.detects
def all_accounts_bound(scratch: Cluster, _rng: Random) -> Damage:
    """A binding of the group of all accounts of the namespace."""
    group = {"kind": "Group", "name": f"system:serviceaccounts:{NAMESPACE}"}
    with edited(scratch) as objects:
        objects.one("RoleBinding", "inspector")["subjects"].append(group)
    return Damage("ServiceAccount backup", "it got what others have", says="it may get")


@rights_are_least.detects
def right_removed(scratch: Cluster, _rng: Random) -> Damage:
    """A clean-up of rights, after which nobody sees failing jobs."""
    with edited(scratch) as objects:
        role = objects.one("Role", "inspector")
        role["rules"] = [each for each in role["rules"] if "jobs" not in each["resources"]]
    return Damage("ServiceAccount inspector", "it lost a right", says="which it needs")


@network_closed.detects
def closing_policy_deleted(scratch: Cluster, _rng: Random) -> Damage:
    """It was in the way of something, for a moment."""
    with edited(scratch) as objects:
        objects.remove("NetworkPolicy", "closed")
    return Damage("Ingress", "everything may come in", says="no policy closes it")


@network_closed.detects
def label_misspelt(scratch: Cluster, _rng: Random) -> Damage:
    """A selector of pods that there are none of."""
    with edited(scratch) as objects:
        spec = objects.one("NetworkPolicy", "pipeline")["spec"]
        spec["podSelector"] = {"matchLabels": {"app": "pipelin"}}
    return Damage("TCP 5432", "the policy is of no pod", says="no policy lets every pod out")


@network_closed.detects
def open_to_the_world(scratch: Cluster, _rng: Random) -> Damage:
    """A bucket whose addresses nobody knew."""
    with edited(scratch) as objects:
        everywhere = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}
        objects.one("NetworkPolicy", "pipeline")["spec"]["egress"].append(everywhere)
    return Damage("NetworkPolicy pipeline", "it is open to all", says="every address")


@network_closed.detects
def names_forgotten(scratch: Cluster, rng: Random) -> Damage:
    """DNS over UDP alone: long answers come over TCP."""
    gone = rng.choice(["TCP", "UDP"])
    with edited(scratch) as objects:
        (rule,) = objects.one("NetworkPolicy", "names")["spec"]["egress"]
        rule["ports"] = [each for each in rule["ports"] if each["protocol"] != gone]
    return Damage(f"{gone} 53", "names are not resolved", says="no policy lets every pod out")


@network_closed.detects
def let_in(scratch: Cluster, _rng: Random) -> Damage:
    """A dashboard that wanted metrics."""
    with edited(scratch) as objects:
        objects.one("NetworkPolicy", "pipeline")["spec"]["ingress"] = [{}]
    return Damage("NetworkPolicy pipeline", "it lets everything in", says="it lets in")
