"""A provider of Kubernetes objects, where no installation of Pulumi brings its own.

A test double of ``pulumi-resource-kubernetes``: it applies single objects to the real API server,
on the server's side and by ``kubectl``, and replaces, awaits and reports as the real one does. It
does not know List and Patch resources, Helm, YAML and Kustomize, client-side apply, rendering to
files, generateName, or awaiting anything but Deployments, StatefulSets, Services and volume claims;
of a Service it does not wait the ten seconds in which the real one lets endpoints settle; what it
awaits it does not look at again in a refresh; deletion is awaited whatever the annotations say.
"""

from __future__ import annotations

import os
from typing import Any

import yaml
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from . import differences
from . import kubernetes_objects as objects
from .errors import EngineError
from .kubectl import Cluster, KubectlError, server_of
from .properties import Properties, decode, encode, has_unknown, plain, secret_strings
from .provider import Context, InitFailed, Provider, serve_provider, tells_errors

TIMEOUT = 600.0
SKIP_AWAIT = "pulumi.com/skipAwait"
PATCH_FORCE = "pulumi.com/patchForce"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
DIFF = provider_pb2.DiffResponse
WAITING_PODS = 3  # of a failed rollout's pods, those that are told of


class KubernetesProvider(Provider):
    """One provider resource: one cluster, one field manager."""

    package = "pulumi_kubernetes"

    def __init__(self, engine: str) -> None:
        super().__init__(engine)
        self._config: Properties = {}
        self._cluster = self._connect(None, None, None)
        self._unknown = False

    def _connect(self, kubeconfig: str | None, context: str | None, cluster: str | None) -> Cluster:
        """The API server that a configuration leads to."""
        return Cluster(kubeconfig, context, cluster)

    @tells_errors
    def DiffConfig(
        self, request: provider_pb2.DiffRequest, context: Context
    ) -> provider_pb2.DiffResponse:
        old, new = plain(decode(request.old_inputs)), plain(decode(request.news))
        changed = sorted(key for key in old | new if old.get(key) != new.get(key))
        if "clusterIdentifier" in old and "clusterIdentifier" in new:
            moved = ["clusterIdentifier"] if "clusterIdentifier" in changed else []
        else:
            # Another cluster's objects are others; another user of the same cluster sees the same.
            servers = [_server(old), _server(new)]
            moved = ["kubeconfig"] if None not in servers and servers[0] != servers[1] else []
        some = DIFF.DIFF_SOME if changed else DIFF.DIFF_NONE
        return DIFF(changes=some, diffs=changed, replaces=moved if changed else [])

    @tells_errors
    def Configure(
        self, request: provider_pb2.ConfigureRequest, context: Context
    ) -> provider_pb2.ConfigureResponse:
        self._config = plain(decode(request.args))
        self._unknown = has_unknown(self._config)
        if not self._unknown:
            names = ("kubeconfig", "context", "cluster")
            self._cluster.close()
            self._cluster = self._connect(*(self._config.get(name) for name in names))
        return super().Configure(request, context)

    @tells_errors
    def Check(
        self, request: provider_pb2.CheckRequest, context: Context
    ) -> provider_pb2.CheckResponse:
        inputs, old = decode(request.news), plain(decode(request.olds))
        kind, name = request.urn.split("::")[2:4]
        objects.check(kind.rsplit("$", 1)[-1], inputs)
        inputs = objects.named(inputs, old, name, request.randomSeed)
        inputs = objects.in_namespace(inputs, self._config.get("namespace"))
        return provider_pb2.CheckResponse(inputs=encode(inputs))

    @tells_errors
    def Diff(
        self, request: provider_pb2.DiffRequest, context: Context
    ) -> provider_pb2.DiffResponse:
        old, new = plain(decode(request.old_inputs)), plain(decode(request.news))
        changed = list(differences.changes(old, new))
        mutable = frozenset(
            kind for kind in objects.CONTENTS if self._is_set(f"enable{kind}Mutable")
        )
        return differences.response(
            changed,
            lambda change: objects.replaces(change, new, mutable),
            objects.same_name(old, new),
        )

    @tells_errors
    def Create(
        self, request: provider_pb2.CreateRequest, context: Context
    ) -> provider_pb2.CreateResponse:
        inputs = decode(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=encode(self._preview(inputs)))
        identity = objects.identity(plain(inputs))
        self._must_answer()
        failed = f"resource {identity} was not successfully created by the Kubernetes API server"
        reference = objects.reference(plain(inputs))
        try:
            exists = self._cluster.get(reference) is not None
        except KubectlError as error:
            raise EngineError(f"{failed}: {error}") from error
        if exists and not self._is_set("upsertExistingObjects"):
            raise EngineError(f"{failed}: {inputs['kind']} {identity} already exists")
        live = self._apply(inputs, request.urn, failed)
        found = self._await(inputs, live, request.timeout, "created")
        return provider_pb2.CreateResponse(id=identity, properties=encode(found))

    @tells_errors
    def Update(
        self, request: provider_pb2.UpdateRequest, context: Context
    ) -> provider_pb2.UpdateResponse:
        inputs = decode(request.news)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=encode(self._preview(inputs)))
        identity = objects.identity(plain(inputs))
        self._must_answer()
        failed = f"resource {identity} was not successfully updated by the Kubernetes API server"
        # What the inputs no longer have, the server removes: it knows whose each property is.
        live = self._apply(inputs, request.urn, failed)
        found = self._await(inputs, live, request.timeout, "updated")
        return provider_pb2.UpdateResponse(properties=encode(found))

    @tells_errors
    def Read(
        self, request: provider_pb2.ReadRequest, context: Context
    ) -> provider_pb2.ReadResponse:
        self._must_answer()
        inputs, recorded = decode(request.inputs), plain(decode(request.properties))
        token = request.urn.split("::")[2].rsplit("$", 1)[-1]
        known = plain(inputs) or recorded
        reference = objects.reference(known) if known else objects.from_identity(token, request.id)
        live = self._cluster.get(reference)
        if live is None:
            return provider_pb2.ReadResponse()
        if not inputs:
            inputs = objects.as_inputs(live)
            found = objects.outputs(inputs, live)
            inputs = {key: value for key, value in found.items() if key in inputs}
            inputs["metadata"] = objects.as_inputs(live)["metadata"]
        else:
            found = objects.outputs(inputs, live)
            secrets = list(objects.secret_paths(inputs))
            now = objects.drifted(plain(inputs), recorded, plain(found))
            inputs = objects.with_secrets(now, iter(secrets))
        return provider_pb2.ReadResponse(
            id=request.id, properties=encode(found), inputs=encode(inputs)
        )

    @tells_errors
    def Delete(self, request: provider_pb2.DeleteRequest, context: Context) -> empty_pb2.Empty:
        if self._is_set("deleteUnreachable") and self._cluster.unreachable():
            return empty_pb2.Empty()
        self._must_answer()
        reference = objects.reference(plain(decode(request.properties)))
        try:
            self._cluster.delete(reference, request.timeout or TIMEOUT)
        except KubectlError as error:
            raise EngineError(f"resource {request.id} was not deleted: {error}") from error
        return empty_pb2.Empty()

    def cancel(self) -> None:
        self._cluster.cancel()

    def _is_set(self, option: str) -> bool:
        """Whether a switch of the provider is on: the SDK sends it as text, the environment may."""
        words = "".join(f"_{c}" if c.isupper() else c.upper() for c in option)
        variable = f"PULUMI_K8S_{words}".replace("CONFIG_MAP", "CONFIGMAP")
        value = self._config.get(option, os.environ.get(variable, "false"))
        return str(value).lower() == "true"

    def _must_answer(self) -> None:
        reason = "its kubeconfig is not known yet" if self._unknown else self._cluster.unreachable()
        if reason:
            raise EngineError(f"configured Kubernetes cluster is unreachable: {reason}")

    def _preview(self, inputs: Properties) -> Properties:
        """What the API server would make of the inputs; the inputs where it cannot know yet."""
        if has_unknown(inputs) or self._unknown or self._cluster.unreachable():
            return inputs
        identity = objects.identity(plain(inputs))
        force = self._forces(inputs)
        try:
            live, _ = self._cluster.apply(
                plain(inputs), secret_strings(_secret(inputs)), dry_run=True, force=force
            )
        except KubectlError as error:
            if error.says_no_namespace:
                return inputs
            raise EngineError(f"resource {identity} cannot be previewed: {error}") from error
        live.pop("status", None)
        found = objects.outputs(inputs, live)
        # What a server makes up anew for each dry run is not known.
        for key in objects.SERVER_SET:
            found["metadata"].pop(key, None)
        return found

    def _apply(self, inputs: Properties, urn: str, failed: str) -> Properties:
        try:
            live, warnings = self._cluster.apply(
                plain(inputs),
                secret_strings(_secret(inputs)),
                dry_run=False,
                force=self._forces(inputs),
            )
        except KubectlError as error:
            raise EngineError(f"{failed}: {error}") from error
        for warning in warnings:
            self.warn(urn, warning)
        return live

    def _forces(self, inputs: Properties) -> bool:
        return self._is_set("enablePatchForce") or _annotation(inputs, PATCH_FORCE) == "true"

    def _await(self, inputs: Properties, live: Properties, timeout: float, done: str) -> Properties:
        """The outputs once the object is ready. Raises InitFailed where it does not become so."""
        identity = objects.identity(live)
        seconds = timeout or float(_annotation(inputs, TIMEOUT_SECONDS) or TIMEOUT)
        problem = ""
        if str(_annotation(inputs, SKIP_AWAIT)).lower() != "true":
            try:
                self._wait(live, seconds)
            except KubectlError as error:
                problem = "; ".join([str(error), *self._reasons(live)])
            live = self._cluster.get(objects.reference(live)) or live
        found = objects.outputs(inputs, live)
        if problem:
            raise InitFailed(
                f"resource {identity} was successfully {done}, but the Kubernetes API server "
                f"reported that it failed to fully initialize or become live: {problem}",
                identity,
                found,
                inputs,
            )
        return found

    def _wait(self, live: Properties, seconds: float) -> None:
        kind, spec = live["kind"], live.get("spec", {})
        name, namespace = live["metadata"]["name"], live["metadata"].get("namespace", "")
        if kind in ("Deployment", "StatefulSet"):
            self._cluster.wait_for_rollout(kind, namespace, name, seconds)
        elif kind == "Service":
            headless = spec.get("clusterIP") == "None" or spec.get("type") == "ExternalName"
            if spec.get("selector") and not headless:
                self._cluster.wait_for_endpoints(namespace, name, seconds)
        elif kind == "PersistentVolumeClaim" and not self._waits_for_pod(spec):
            self._cluster.wait_for_claim(objects.reference(live), seconds)

    def _waits_for_pod(self, spec: Properties) -> bool:
        """Whether a claim is bound only when a pod uses it."""
        name = spec.get("storageClassName")
        if not name:
            return False
        reference = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"}
        found = self._cluster.get(reference | {"metadata": {"name": name}})
        return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"

    def _reasons(self, live: Properties) -> list[str]:
        """Why a rollout does not end: what its conditions and its pods' containers say."""
        now = self._cluster.get(objects.reference(live)) or live
        reasons = [
            condition["message"]
            for condition in now.get("status", {}).get("conditions", [])
            if condition.get("message")
            and (condition["type"] == "ReplicaFailure" or condition["status"] == "False")
        ]
        labels = live.get("spec", {}).get("selector", {}).get("matchLabels")
        if not labels or live["kind"] not in ("Deployment", "StatefulSet"):
            return reasons
        pods = self._cluster.list("pods", live["metadata"]["namespace"], labels)
        for pod in pods[:WAITING_PODS]:
            status = pod.get("status", {})
            for container in status.get("containerStatuses", []):
                waiting = container.get("state", {}).get("waiting")
                if waiting:
                    said = ": ".join(filter(None, [waiting.get("reason"), waiting.get("message")]))
                    reasons.append(f"pod {pod['metadata']['name']}: {said}")
            reasons += [
                f"pod {pod['metadata']['name']}: {condition['message']}"
                for condition in status.get("conditions", [])
                if condition["type"] == "PodScheduled" and condition.get("message")
            ]
        return reasons


def _secret(inputs: Properties) -> Any:
    """The inputs with all secrets marked: a Secret's contents are, said so or not."""
    return objects.outputs(inputs, inputs)


def _annotation(inputs: Properties, name: str) -> str | None:
    annotations = plain(objects.metadata(plain(inputs)).get("annotations"))
    return annotations.get(name) if isinstance(annotations, dict) else None


def _server(config: Properties) -> str | None:
    value = config.get("kubeconfig")
    try:
        parsed = yaml.safe_load(value) if isinstance(value, str) else None
    except yaml.YAMLError:
        parsed = None
    return server_of(parsed, config.get("context"), config.get("cluster"))


def main() -> None:
    serve_provider(KubernetesProvider)
