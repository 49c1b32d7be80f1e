"""What the doubles of resource providers share."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, empty_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

from .errors import EngineError
from .properties import Properties, encode
from .serving import serve

Context = grpc.ServicerContext


class InitFailed(EngineError):
    """The resource is there but is not what it should be: the engine keeps it, and tells."""

    def __init__(self, message: str, identity: str, outputs: Properties, inputs: Properties):
        super().__init__(message)
        self.message = message
        self.identity = identity
        self.outputs = outputs
        self.inputs = inputs


def tells_errors(method: Callable[..., Any]) -> Callable[..., Any]:
    """Makes an EngineError of a call the error that the engine shows."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: Context) -> Any:
        try:
            return method(self, request, context)
        except InitFailed as error:
            detail = any_pb2.Any()
            detail.Pack(
                provider_pb2.ErrorResourceInitFailed(
                    id=error.identity,
                    properties=encode(error.outputs),
                    inputs=encode(error.inputs),
                    reasons=[error.message],
                )
            )
            _abort(context, error.message, [detail])
        except EngineError as error:
            _abort(context, str(error), [])

    return call


def _abort(context: Context, message: str, details: list[any_pb2.Any]) -> NoReturn:
    code = grpc.StatusCode.UNKNOWN
    status = status_pb2.Status(code=code.value[0], message=message, details=details)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)
    raise AssertionError("abort raises")


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """A provider without a schema, functions or components, whose configuration is taken as is."""

    package = ""
    """The distribution whose version this provider has: its SDK asks for no older one."""

    def __init__(self, engine: str) -> None:
        self._engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(engine))

    def warn(self, urn: str, message: str) -> None:
        """Tell the user, beside the resource."""
        severity = engine_pb2.LogSeverity.WARNING
        self._engine.Log(engine_pb2.LogRequest(severity=severity, message=message, urn=urn))

    def Handshake(
        self, request: provider_pb2.ProviderHandshakeRequest, context: Context
    ) -> provider_pb2.ProviderHandshakeResponse:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def GetPluginInfo(self, request: empty_pb2.Empty, context: Context) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=importlib.metadata.version(self.package))

    def GetSchema(
        self, request: provider_pb2.GetSchemaRequest, context: Context
    ) -> provider_pb2.GetSchemaResponse:
        return provider_pb2.GetSchemaResponse(schema="{}")

    def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: Context
    ) -> provider_pb2.CheckResponse:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(
        self, request: provider_pb2.DiffRequest, context: Context
    ) -> provider_pb2.DiffResponse:
        changed = request.old_inputs != request.news
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME
            if changed
            else provider_pb2.DiffResponse.DIFF_NONE
        )

    def Configure(
        self, request: provider_pb2.ConfigureRequest, context: Context
    ) -> provider_pb2.ConfigureResponse:
        # A secret that a provider sends back as a secret stays encrypted in the state; one that
        # takes none is sent the plain value, and its output is made secret by guesswork.
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Cancel(self, request: empty_pb2.Empty, context: Context) -> empty_pb2.Empty:
        self.cancel()
        return empty_pb2.Empty()

    def cancel(self) -> None:
        """End what the calls under way have started; nothing here."""


def serve_provider(kind: type[Provider]) -> None:
    """Serve a provider until the engine ends; the engine's address is the last of the arguments."""
    provider = kind(sys.argv[-1])
    serve(
        lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server),
        provider.cancel,
    )
