"""A provider of EKS clusters in a make-believe cloud, for tests.

A test double of ``pulumi-resource-eks``: one component (eks_cluster.py), constructed as the real
one is, so that its children go through the engine, the AWS provider and the program's transforms.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import sys

import grpc
import grpc.aio
import pulumi
import pulumi.provider
from google.protobuf import empty_pb2
from pulumi.provider.server import ProviderServicer
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from tests.e2e.engine.serving import ENGINE_CHECK, LARGEST_MESSAGE

from .eks_cluster import Cluster

LIMITS = [
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
]


class EksProvider(pulumi.provider.Provider):
    """Constructs clusters."""

    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: pulumi.Inputs,
        options: pulumi.ResourceOptions | None = None,
    ) -> pulumi.provider.ConstructResult:
        if resource_type != "eks:index:Cluster":
            raise ValueError(f"this test double knows no {resource_type}")
        made = Cluster(name, inputs, options or pulumi.ResourceOptions())
        return pulumi.provider.ConstructResult(made.urn, made.state)


class Servicer(ProviderServicer):
    """The SDK's, with the calls that it leaves out and an engine makes."""

    async def Handshake(
        self, request: provider_pb2.ProviderHandshakeRequest, context: grpc.aio.ServicerContext
    ) -> provider_pb2.ProviderHandshakeResponse:
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=True, accept_resources=True, accept_outputs=True
        )

    async def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: grpc.aio.ServicerContext
    ) -> provider_pb2.CheckResponse:
        return provider_pb2.CheckResponse(inputs=request.news)

    async def DiffConfig(
        self, request: provider_pb2.DiffRequest, context: grpc.aio.ServicerContext
    ) -> provider_pb2.DiffResponse:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    async def Cancel(
        self, request: empty_pb2.Empty, context: grpc.aio.ServicerContext
    ) -> empty_pb2.Empty:
        return empty_pb2.Empty()


async def serve(engine: str) -> None:
    """Serve until the engine ends: it asks with SIGINT, or is gone."""
    parent = os.getppid()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = grpc.aio.server(options=LIMITS)
    version = importlib.metadata.version("pulumi_eks")
    servicer = Servicer(EksProvider(version), sys.argv, engine)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    while os.getppid() == parent and not stopped.is_set():
        try:
            await asyncio.wait_for(stopped.wait(), ENGINE_CHECK)
        except TimeoutError:
            continue


def main() -> None:
    asyncio.run(serve(sys.argv[-1]))
    # Calls under way are nobody's any more.
    os._exit(0)
