"""A provider of Kubernetes objects in clusters that exist in a make-believe cloud only, for tests.

A test double of ``pulumi-resource-kubernetes``: of the other double (../kubernetes_provider.py) it
keeps all that makes, compares and reports objects, and puts them into the cloud's file in place of
an API server. Nothing runs: what would have to become ready is ready. Nothing checks an object.
"""

from __future__ import annotations

import base64
import copy
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable
from typing import Any

import yaml

from tests.e2e.engine import kubernetes_objects as objects
from tests.e2e.engine.kubectl import Cluster, KubectlError, server_of
from tests.e2e.engine.kubernetes_provider import KubernetesProvider
from tests.e2e.engine.properties import Properties
from tests.e2e.engine.provider import serve_provider

from .kinds import Making, Refused
from .references import mentions
from .store import Row, Store, Transaction

BORN_WITH = ("default", "kube-system", "kube-public", "kube-node-lease")
ADMINISTRATOR = ("AmazonEKSClusterAdminPolicy", "AmazonEKSAdminPolicy")
BINDING = "TargetGroupBinding"
TOKEN = "kubernetes:{api}:{kind}"


class CloudCluster(Cluster):
    """A cluster of the cloud, by the calls of a real one."""

    def __init__(self, kubeconfig: str | None, context: str | None, cluster: str | None) -> None:
        super().__init__(None, None, None)
        self._store = Store.of_environment()
        self._config = _parsed(kubeconfig)
        # Names of hosts are the same in capitals, which EKS's endpoints have.
        self._server = _endpoint(self._config, context, cluster).lower()
        self._role = _role(self._config)

    def unreachable(self) -> str:
        """Why the cluster does not answer: asked each time, for it may be made or deleted."""
        with self._store.transaction() as cloud:
            return self._refusal(cloud)

    def _refusal(self, cloud: Transaction) -> str:
        row = self._row(cloud)
        if row is None:
            return f"dial tcp: lookup {self._server}: no such host"
        if not _may_enter(cloud, row, self._role):
            return f"the server has asked for the client to provide credentials: {self._role}"
        return ""

    def _row(self, cloud: Transaction) -> Row | None:
        where = "alive and type = 'aws:eks/cluster:Cluster'"
        where += " and lower(json_extract(outputs, '$.endpoint')) = ?"
        return next(iter(cloud.rows(where, (self._server,))), None)

    def get(self, reference: Properties) -> Properties | None:
        with self._store.transaction() as cloud:
            return self._get(cloud, reference)

    def _get(self, cloud: Transaction, reference: Properties) -> Properties | None:
        where = "cluster = ? and api = ? and kind = ? and namespace = ? and name = ?"
        found = cloud.sql(f"select manifest from objects where {where}", self._key(reference))  # noqa: S608 - a constant
        row = found.fetchone()
        if row is not None:
            return json.loads(row[0])
        name = reference["metadata"].get("name")
        if reference["kind"] == "Namespace" and name in BORN_WITH:
            return {**reference, "status": {"phase": "Active"}}
        return None

    def list(self, resource: str, namespace: str, labels: dict[str, str]) -> list[Properties]:
        return []

    def apply(
        self, manifest: Properties, secrets: Iterable[str], dry_run: bool, force: bool
    ) -> tuple[Properties, list[str]]:
        with self._store.transaction() as cloud:
            live, refused = None, None
            try:
                live = self._apply(cloud, manifest, dry_run)
            except KubectlError as error:
                refused = error
            if not dry_run:
                self._log(cloud, "apply", manifest, str(refused or "ok"))
        if live is None:
            raise refused or KubectlError("refused")
        return live, []

    def _apply(self, cloud: Transaction, manifest: Properties, dry_run: bool) -> Properties:
        row = self._row(cloud)
        if row is None:
            raise KubectlError(self._refusal(cloud))
        key = self._key(manifest)
        home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": key[3]}}
        if key[3] and self._get(cloud, home) is None:
            raise KubectlError(f'namespaces "{key[3]}" not found')
        named: set[str] = set()
        if manifest["kind"] == BINDING:
            named = self._targets(cloud, row, manifest)
        live = _as_kept(manifest, self._get(cloud, manifest))
        if not dry_run:
            cloud.sql(
                "insert into objects (cluster, api, kind, namespace, name, manifest)"
                " values (?, ?, ?, ?, ?, ?) on conflict do update set manifest = excluded.manifest",
                (*key, json.dumps(live)),
            )
            self._remember_binding(cloud, row, key, live, named)
        return live

    def _targets(self, cloud: Transaction, row: Row, manifest: Properties) -> set[str]:
        """The target group of a binding, which must be there and be for this cluster."""
        arn = str(manifest.get("spec", {}).get("targetGroupARN"))
        making = Making(cloud, row.account, row.region, {"targetGroupARN": arn}, {})
        try:
            named = mentions(TOKEN, making)
            group = making.find(arn)
        except Refused as error:
            raise KubectlError(str(error)) from error
        if group.outputs.get("tagsAll", {}).get("eks:eks-cluster-name") != row.id:
            message = "AccessDenied: elasticloadbalancing:RegisterTargets needs the target group's"
            raise KubectlError(f"{message} tag eks:eks-cluster-name to be {row.id}")
        return named

    def _remember_binding(
        self, cloud: Transaction, row: Row, key: tuple[str, ...], live: Properties, named: set[str]
    ) -> None:
        """A binding is kept as a resource as well: it holds its target group."""
        if live["kind"] != BINDING:
            return
        token, identity = TOKEN.format(api=key[1], kind=BINDING), "/".join(key)
        before = cloud.by_id(token, identity, row.account, row.region)
        if before is not None:
            cloud.change(before, live["spec"], {"id": identity}, named)
            return
        urn = f"::{live['metadata']['name']}"
        place = (row.account, row.region)
        cloud.add(token, urn, *place, live["spec"], {"id": identity}, (), named)

    def delete(self, reference: Properties, seconds: float) -> None:
        with self._store.transaction() as cloud:
            key = self._key(reference)
            cloud.sql(
                "delete from objects where"
                " cluster = ? and api = ? and kind = ? and namespace = ? and name = ?",
                key,
            )
            self._forget_bindings(cloud, "/".join(key))
            if reference["kind"] == "Namespace":
                # With all that is in it.
                inside = (key[0], key[4])
                cloud.sql("delete from objects where cluster = ? and namespace = ?", inside)
                self._forget_bindings(cloud, f"{key[0]}/*/{BINDING}/{key[4]}/*")
            self._log(cloud, "remove", reference, "ok")

    def _forget_bindings(self, cloud: Transaction, pattern: str) -> None:
        for row in cloud.rows("alive and type like 'kubernetes:%' and id glob ?", (pattern,)):
            cloud.remove(row)

    def wait_for_rollout(self, kind: str, namespace: str, name: str, seconds: float) -> None:
        pass

    def wait_for_endpoints(self, namespace: str, name: str, seconds: float) -> None:
        pass

    def wait_for_claim(self, reference: Properties, seconds: float) -> None:
        pass

    def _key(self, reference: Properties) -> tuple[str, ...]:
        """Cluster, API version, kind, namespace and name."""
        kind, names = reference["kind"], objects.metadata(reference)
        space = "" if kind in objects.CLUSTER_SCOPED else names.get("namespace") or "default"
        return self._server, reference["apiVersion"], kind, space, str(names.get("name"))

    def _log(self, cloud: Transaction, action: str, reference: Properties, outcome: str) -> None:
        key = self._key(reference)
        row = self._row(cloud)
        token = TOKEN.format(api=key[1], kind=key[2])
        place = f"{key[3]}/{key[4]}" if key[3] else key[4]
        cloud.log(action, token, place, row.account if row else "", f"{key[0]}::{place}", outcome)


class CloudKubernetesProvider(KubernetesProvider):
    """One provider resource: one cluster of the cloud."""

    def _connect(self, kubeconfig: str | None, context: str | None, cluster: str | None) -> Cluster:
        return CloudCluster(kubeconfig, context, cluster)


def _as_kept(manifest: Properties, before: Properties | None) -> Properties:
    """The object with what an API server adds."""
    live = copy.deepcopy(manifest)
    old = objects.metadata(before or {})
    seed = json.dumps(objects.reference(manifest), sort_keys=True)
    live["metadata"]["uid"] = old.get("uid") or hashlib.sha256(seed.encode()).hexdigest()[:32]
    live["metadata"]["generation"] = old.get("generation", 0) + 1
    if live["kind"] == "Secret" and "stringData" in live:
        encoded = {
            key: base64.b64encode(str(value).encode()).decode()
            for key, value in live.pop("stringData").items()
        }
        live["data"] = live.get("data", {}) | encoded
    return live


@functools.lru_cache(maxsize=8)
def _parsed(kubeconfig: str | None) -> Any:
    try:
        return yaml.safe_load(kubeconfig or "")
    except yaml.YAMLError:
        return None


def _endpoint(config: Any, context: str | None, cluster: str | None) -> str:
    """The endpoint that a kubeconfig means: behind a tunnel, the name that its certificate has."""
    server = server_of(config, context, cluster) or ""
    if not isinstance(config, dict):
        return server
    for entry in config.get("clusters") or []:
        name = entry["cluster"].get("tls-server-name")
        if name and entry["cluster"].get("server") == server:
            return f"https://{name}"
    return server


def _role(config: Any) -> str:
    """The role whose token a kubeconfig asks for; empty for the caller's own."""
    if not isinstance(config, dict):
        return ""
    for user in config.get("users") or []:
        arguments = (user.get("user", {}).get("exec") or {}).get("args") or []
        for option, value in itertools.pairwise(arguments):
            if option in ("--role", "--role-arn", "-r"):
                return str(value)
    return ""


def _may_enter(cloud: Transaction, cluster: Row, role: str) -> bool:
    """Whether an access entry lets a role in, with a policy that lets it do something."""
    access = cluster.inputs.get("accessConfig", {})
    if not role:
        return access.get("bootstrapClusterCreatorAdminPermissions", True)
    return any(
        row.type.endswith(":AccessPolicyAssociation")
        and row.inputs.get("principalArn") == role
        and str(row.inputs.get("policyArn")).endswith(ADMINISTRATOR)
        for row in cloud.naming(cluster)
    )


def main() -> None:
    serve_provider(CloudKubernetesProvider)
