"""A provider of AWS resources in a make-believe cloud, for tests.

A test double of ``pulumi-resource-aws``. It keeps what it is told, gives out identifiers in the
account that it was configured for, and refuses what AWS is documented to refuse (references.py). It
has no schema, knows three functions, and checks no property's spelling or value.
"""

from __future__ import annotations

import threading
from typing import Any

from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from tests.e2e.engine import differences
from tests.e2e.engine.errors import EngineError
from tests.e2e.engine.properties import (
    UNKNOWN,
    Properties,
    decode,
    encode,
    has_unknown,
    plain,
    secret_paths,
    with_secrets,
)
from tests.e2e.engine.provider import Context, Provider, serve_provider, tells_errors

from . import access, making
from .kinds import Refused, kind_of, made_up_name, replaces
from .store import Store

DEFAULTS = "__defaults"


class AwsProvider(Provider):
    """One provider resource: one account and Region, and the tags that go on everything."""

    package = "pulumi_aws"

    def __init__(self, engine: str) -> None:
        super().__init__(engine)
        self._store = Store.of_environment()
        self._access = access.Access()
        self._cancelled = threading.Event()

    @tells_errors
    def Configure(
        self, request: provider_pb2.ConfigureRequest, context: Context
    ) -> provider_pb2.ConfigureResponse:
        config = plain(decode(request.args))
        with self._store.transaction() as cloud:
            outcome = "ok"
            try:
                self._access = access.configured(cloud, config)
            except Refused as error:
                outcome = str(error)
            cloud.log("configure", "pulumi:providers:aws", "", self._access.account, "", outcome)
        if outcome != "ok":
            raise EngineError(outcome)
        return super().Configure(request, context)

    @tells_errors
    def Invoke(
        self, request: provider_pb2.InvokeRequest, context: Context
    ) -> provider_pb2.InvokeResponse:
        return provider_pb2.InvokeResponse(**{"return": encode(self._access.call(request.tok))})

    @tells_errors
    def Check(
        self, request: provider_pb2.CheckRequest, context: Context
    ) -> provider_pb2.CheckResponse:
        inputs, old = decode(request.news), plain(decode(request.olds))
        token, logical = _token(request.urn), request.urn.rsplit("::", 1)[-1]
        kind = kind_of(token, plain(inputs))
        defaults = []
        if kind.name and kind.name not in inputs and f"{kind.name}Prefix" not in inputs:
            known = kind.name in old.get(DEFAULTS, [])
            name = old[kind.name] if known else made_up_name(kind, logical, request.randomSeed)
            inputs[kind.name] = name.lower() if token.startswith("aws:s3/") else name
            defaults.append(kind.name)
        inputs[DEFAULTS] = defaults
        if making.has_tags(token):
            inputs["tagsAll"] = self._all_tags(plain(inputs.get("tags", {})))
        return provider_pb2.CheckResponse(inputs=encode(inputs))

    @tells_errors
    def Diff(
        self, request: provider_pb2.DiffRequest, context: Context
    ) -> provider_pb2.DiffResponse:
        old, new = plain(decode(request.old_inputs)), plain(decode(request.news))
        changes = [
            change
            for change in differences.changes(old, new)
            if not differences.path_text(change.path).startswith(DEFAULTS)
        ]
        kind = kind_of(_token(request.urn), new)
        # Where the program chose the name, two cannot stand beside each other.
        own_name = bool(kind.name) and kind.name not in new.get(DEFAULTS, [])
        same_name = own_name and old.get(kind.name) == new.get(kind.name)
        return differences.response(changes, lambda change: replaces(kind, change.path), same_name)

    @tells_errors
    def Create(
        self, request: provider_pb2.CreateRequest, context: Context
    ) -> provider_pb2.CreateResponse:
        inputs, token = decode(request.properties), _token(request.urn)
        if request.preview:
            return provider_pb2.CreateResponse(properties=encode(_outputs(inputs, {})))
        if has_unknown(inputs):
            raise EngineError("a property of the resource is not known")
        where = self._access.within(plain(inputs))
        order = making.Order(token, request.urn, *where, plain(inputs))
        fault, outputs = making.create(self._store, order)
        if fault:
            self._cancelled.wait()
            raise EngineError("RequestCanceled: the operation was cancelled")
        found = encode(_outputs(inputs, outputs))
        return provider_pb2.CreateResponse(id=outputs["id"], properties=found)

    @tells_errors
    def Update(
        self, request: provider_pb2.UpdateRequest, context: Context
    ) -> provider_pb2.UpdateResponse:
        inputs, before = decode(request.news), decode(request.olds)
        given = decode(request.old_inputs)
        kept = {key: value for key, value in before.items() if key not in given}
        if request.preview:
            return provider_pb2.UpdateResponse(properties=encode(_outputs(inputs, kept)))
        where = self._access.within(plain(inputs))
        order = making.Order(_token(request.urn), request.urn, *where, plain(inputs))
        outputs = making.update(self._store, order, request.id)
        return provider_pb2.UpdateResponse(properties=encode(_outputs(inputs, outputs)))

    @tells_errors
    def Read(
        self, request: provider_pb2.ReadRequest, context: Context
    ) -> provider_pb2.ReadResponse:
        inputs = decode(request.inputs)
        where = self._access.within(plain(inputs))
        order = making.Order(_token(request.urn), request.urn, *where, {})
        row = making.read(self._store, order, request.id)
        if row is None:
            return provider_pb2.ReadResponse()
        secrets = list(secret_paths(inputs))
        return provider_pb2.ReadResponse(
            id=request.id,
            inputs=encode(with_secrets(row.inputs, iter(secrets))),
            properties=encode(with_secrets(_visible(row.outputs), iter(secrets))),
        )

    @tells_errors
    def Delete(self, request: provider_pb2.DeleteRequest, context: Context) -> empty_pb2.Empty:
        where = self._access.within(plain(decode(request.properties)))
        making.delete(
            self._store, making.Order(_token(request.urn), request.urn, *where, {}), request.id
        )
        return empty_pb2.Empty()

    def _all_tags(self, tags: Any) -> Any:
        """A resource's own tags on top of the provider's."""
        return self._access.tags | tags if isinstance(tags, dict) else UNKNOWN

    def cancel(self) -> None:
        self._cancelled.set()


def _token(urn: str) -> str:
    return urn.split("::")[2].rsplit("$", 1)[-1]


def _outputs(inputs: Properties, made: Properties) -> Properties:
    """What the engine is given: the inputs and what was made of them, secrets where they were."""
    return with_secrets(_visible(plain(inputs) | made), secret_paths(inputs))


def _visible(properties: Properties) -> Properties:
    return {key: value for key, value in properties.items() if key != DEFAULTS}


def main() -> None:
    serve_provider(AwsProvider)
