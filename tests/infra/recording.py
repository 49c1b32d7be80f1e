"""Runs the program against a monitor that records what it would have an engine make.

Each run has a context of its own, so that no stack, configuration or root resource is left for the
next one.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import runpy
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime import mocks, run_in_stack, set_all_config
from pulumi.runtime.proto import callback_pb2, resource_pb2
from pulumi.runtime.settings import configure

from . import aws, eks

PROGRAM = Path(__file__).parents[2] / "infra" / "__main__.py"
PROJECT = "fl-silos"
STACK_TYPE = "pulumi:pulumi:Stack"
SIGNATURE, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_FRESH = contextvars.copy_context()


@dataclass(frozen=True)
class Secret:
    """A value that Pulumi keeps encrypted and does not show."""

    value: Any


@dataclass(frozen=True)
class Record:
    """One resource, as the program has registered it."""

    urn: str
    properties: dict[str, Any]
    provider: str
    """URN of the provider; empty for a component, and for what would get a default provider."""
    dependencies: tuple[str, ...]
    custom: bool
    parent: str = ""
    providers: Mapping[str, str] = field(default_factory=dict)
    """What a component that the engine makes elsewhere hands on, by package."""
    protect: bool = False
    references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """URNs of what a property's value comes from, by property."""

    @property
    def kind(self) -> str:
        """Its own type, such as ``kubernetes:core/v1:Secret``."""
        return self.urn.split("::")[2].split("$")[-1]

    @property
    def name(self) -> str:
        """Pulumi's name of it."""
        return self.urn.split("::")[3]

    @property
    def short(self) -> str:
        """The URN without what all have in common."""
        return "::".join(self.urn.split("::")[2:])


@dataclass
class Recording:
    """What a run has registered, and the stack's outputs."""

    resources: dict[str, Record] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)

    def of(self, kind: str, name: str = "") -> Record:
        """The resource of a kind that ends so, the only one or that of the name."""
        found = [
            one
            for one in self.resources.values()
            if one.kind.endswith(kind) and name in ("", one.name)
        ]
        assert len(found) == 1, f"{len(found)} of kind {kind} {name}"
        return found[0]

    def all(self, kind: str) -> list[Record]:
        """All resources of a kind that ends so."""
        return [one for one in self.resources.values() if one.kind.endswith(kind)]

    def before(self, one: Record) -> set[str]:
        """URNs of what is made before it, at whatever distance: it is destroyed before them."""
        found: set[str] = set()
        waiting = [one]
        while waiting:
            for urn in waiting.pop().dependencies:
                if urn not in found:
                    found.add(urn)
                    waiting += [self.resources[urn]] if urn in self.resources else []
        return found

    @property
    def manifests(self) -> list[dict[str, Any]]:
        """The Kubernetes objects, secrets laid open."""
        return [
            opened(one.properties)
            for _, one in sorted(self.resources.items())
            if one.kind.startswith("kubernetes:")
        ]


class Monitor(mocks.MockMonitor):
    """Answers as an engine would; ``preview`` as one that has made nothing yet."""

    def __init__(self, preview: bool, references: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(_NoMocks())
        self._references = references
        self.callbacks = Callbacks()
        self.recording = Recording()
        self._preview = preview
        self._lock = threading.Lock()

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        parents = parent.split("::")[2] if parent else STACK_TYPE
        full = type_ if parents == STACK_TYPE else f"{parents}${type_}"
        return f"urn:pulumi:{pulumi.get_stack()}::{pulumi.get_project()}::{full}::{name}"

    def RegisterResource(
        self, request: resource_pb2.RegisterResourceRequest
    ) -> resource_pb2.RegisterResourceResponse:
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == STACK_TYPE:
            return resource_pb2.RegisterResourceResponse(urn=urn)
        inputs = json_format.MessageToDict(request.object)
        record = Record(
            urn,
            decoded(inputs),
            request.provider.rpartition("::")[0],
            tuple(sorted(request.dependencies)),
            request.custom,
            request.parent,
            {package: ref.rpartition("::")[0] for package, ref in request.providers.items()},
            request.protect,
            {name: frozenset(one.urns) for name, one in request.propertyDependencies.items()},
        )
        self._add(record)
        if request.type == eks.CLUSTER:
            return self._eks_cluster(request, record)
        made: dict[str, Any] = {}
        if not self._preview:
            made = outputs_of(request.type, request.name)
            made |= aws.outputs_of(request.type, request.name, inputs)
        for name in request.additionalSecretOutputs:
            if name in made:
                made[name] = {SIGNATURE: SECRET, "value": made[name]}
        state = struct_pb2.Struct()
        state.update({**inputs, **made})
        identity = "" if self._preview and request.custom else f"{request.name}-id"
        # For whoever has a reference to it.
        self.resources[urn] = self.ResourceRegistration(urn, identity, {**inputs, **made})
        return resource_pb2.RegisterResourceResponse(urn=urn, id=identity, object=state)

    def _add(self, record: Record) -> None:
        with self._lock:
            if record.urn in self.recording.resources:
                raise AssertionError(f"{record.urn} is registered twice")
            self.recording.resources[record.urn] = record

    def _eks_cluster(
        self, request: resource_pb2.RegisterResourceRequest, component: Record
    ) -> resource_pb2.RegisterResourceResponse:
        """The component of pulumi-eks: its inner cluster, through the program's transforms."""
        given = json_format.MessageToDict(request.object)
        name = f"{request.name}-eksCluster"
        inner = eks.inner_cluster(given, name, self.callbacks.of(request.transforms))
        urn = self.make_urn(component.urn, eks.INNER, name)
        provider = component.providers.get("aws", component.provider)
        # As the component does, it waits for all that the component waits for.
        self._add(
            Record(
                urn,
                decoded(inner),
                provider,
                component.dependencies,
                True,
                component.urn,
                {},
                component.protect,
            )
        )
        outputs = struct_pb2.Struct()
        if not self._preview:
            state = {**inner, **aws.outputs_of(eks.INNER, request.name, inner)}
            self.resources[urn] = self.ResourceRegistration(urn, inner["name"], state)
            role = given.get("providerCredentialOpts", {}).get("roleArn", "")
            outputs.update(eks.outputs_of(urn, state, role))
        return resource_pb2.RegisterResourceResponse(urn=component.urn, object=outputs)

    # The two below would leave an event loop for each of their threads.

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> Any:
        """Data sources are not asked: only the SDK asks, for what a reference means."""
        if request.tok != "pulumi:pulumi:getResource":
            raise AssertionError(f"the program calls {request.tok}")
        found = self.resources[request.args["urn"]]
        state = struct_pb2.Struct()
        state.update(found._asdict())
        return resource_pb2.ResourceInvokeResponse(**{"return": state})

    def ReadResource(
        self, request: resource_pb2.ReadResourceRequest
    ) -> resource_pb2.ReadResourceResponse:
        """Another stack's outputs, and nothing else."""
        if request.type != "pulumi:pulumi:StackReference":
            raise AssertionError(f"the program reads {request.type}")
        state = struct_pb2.Struct()
        outputs = dict(self._references[request.id])
        state.update({"name": request.id, "outputs": outputs, "secretOutputNames": []})
        urn = self.make_urn(request.parent, request.type, request.name)
        return resource_pb2.ReadResourceResponse(urn=urn, properties=state)

    def RegisterResourceOutputs(
        self, request: resource_pb2.RegisterResourceOutputsRequest
    ) -> empty_pb2.Empty:
        if f"::{STACK_TYPE}::" in request.urn:
            self.recording.outputs = decoded(json_format.MessageToDict(request.outputs))
        return empty_pb2.Empty()


class Callbacks:
    """The program's transforms, without the gRPC server by which an engine calls them.

    That server is asyncio's, and a gRPC that has run asyncio serves nothing else in its process.
    """

    def __init__(self) -> None:
        self._transforms: list[Callable[..., Any]] = []

    def register_transform(self, transform: Callable[..., Any]) -> callback_pb2.Callback:
        """As the SDK's: gives what stands for the transform in a request."""
        self._transforms.append(transform)
        return callback_pb2.Callback(token=str(len(self._transforms) - 1))

    def of(self, given: Iterable[callback_pb2.Callback]) -> list[Callable[..., Any]]:
        """The transforms that a request names."""
        return [self._transforms[int(one.token)] for one in given]


class _NoMocks(mocks.Mocks):
    """Never asked."""

    def call(self, args: mocks.MockCallArgs) -> Any:
        raise AssertionError(f"the program calls {args.token}")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        raise AssertionError(f"the program reads {args.typ}")


def outputs_of(kind: str, name: str) -> dict[str, str]:
    """What a provider would add to the inputs: certificates and keys that are easy to recognise."""
    match kind.rpartition(":")[2]:
        case "PrivateKey":
            return {
                "privateKeyPem": f"KEY OF {name}",
                "privateKeyPemPkcs8": f"PKCS8 KEY OF {name}",
            }
        case "CertRequest":
            return {"certRequestPem": f"REQUEST OF {name}"}
        case "SelfSignedCert" | "LocallySignedCert":
            return {"certPem": f"CERTIFICATE OF {name}"}
    return {}


def record(
    config: Mapping[str, Any],
    stack: str = "local",
    preview: bool = False,
    program: Callable[[], Any] | None = None,
    references: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recording:
    """Run the program with the project's ``config``, given as in the stack's file.

    ``references``: outputs of other stacks, by name.

    Raises what the program raises.
    """
    given = {
        name if ":" in name else f"{PROJECT}:{name}": value
        if isinstance(value, str)
        else json.dumps(value)
        for name, value in config.items()
    }
    return _FRESH.copy().run(_record, given, stack, preview, program or _main, references or {})


def _main() -> None:
    before = [*sys.path]
    try:
        runpy.run_path(str(PROGRAM), run_name="__main__")
    finally:
        sys.path[:] = before


def _record(
    config: dict[str, str],
    stack: str,
    preview: bool,
    program: Callable[[], Any],
    references: Mapping[str, Mapping[str, Any]],
) -> Recording:
    monitor = Monitor(preview, references)
    features = set(monitor.GetDeploymentInfo(empty_pb2.Empty()).supportedFeatures)
    configure(
        mocks.MockSettings(
            monitor=monitor,
            monitor_features=features,
            engine=mocks.MockEngine(None),
            project=PROJECT,
            stack=stack,
            dry_run=preview,
            organization=None,
            callbacks=monitor.callbacks,
            # Copies of a context share what can change: none of this is another recording's.
            outputs=set(),
            lock=threading.Lock(),
        )
    )
    set_all_config(config)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(run_in_stack(program))
    finally:
        # A program that fails leaves tasks, which would complain in the midst of another test.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    return monitor.recording


def decoded(value: Any) -> Any:
    """A message's value, with Secret in it; whole numbers, which a message does not know, whole."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return Secret(decoded(value["value"]))
        return {name: decoded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def opened(value: Any) -> Any:
    """The value with its secrets laid open."""
    return _secrets(value, lambda secret: opened(secret.value))


def hidden(value: Any) -> Any:
    """The value as somebody sees it who may not see secrets."""
    return _secrets(value, lambda secret: "[secret]")


def _secrets(value: Any, shown: Callable[[Secret], Any]) -> Any:
    if isinstance(value, Secret):
        return shown(value)
    if isinstance(value, dict):
        return {name: _secrets(item, shown) for name, item in value.items()}
    if isinstance(value, list):
        return [_secrets(item, shown) for item in value]
    return value
