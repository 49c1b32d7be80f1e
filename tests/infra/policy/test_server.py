"""The pack as the engine starts and asks it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

from infra.policy.pack import NAME, RULES, STACK_RULES
from tests.infra.policy.case import PROVIDER, changed
from tests.infra.policy.cases import cluster, data
from tests.infra.recording import SECRET, SIGNATURE, UNKNOWN

ROOT = Path(__file__).parents[3]
CLUSTER = "aws:eks/cluster:Cluster"
BUCKET = "aws:s3/bucket:Bucket"
SECONDS = 60


@pytest.fixture(scope="module")
def analyzer() -> Iterator[analyzer_pb2_grpc.AnalyzerStub]:
    """The pack in a process of its own; it says on which port it serves."""
    with subprocess.Popen(
        # As Pulumi's language host does: unbuffered, the pack's folder as program.
        [sys.executable, "-u", str(ROOT / "infra" / "policy")],
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")},
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, "the pack has ended before it served"
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield analyzer_pb2_grpc.AnalyzerStub(channel)
        finally:
            process.kill()


def _struct(props: Mapping[str, Any]) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(props)
    return made


def _urn(kind: str, name: str) -> str:
    return f"urn:pulumi:dev::fl-silos::{kind}::{name}"


def _provider() -> analyzer_pb2.AnalyzerProviderResource:
    return analyzer_pb2.AnalyzerProviderResource(
        type="pulumi:providers:aws", urn=PROVIDER, name="north-aws", properties=_struct({})
    )


def _analyze(
    analyzer: analyzer_pb2_grpc.AnalyzerStub, kind: str, props: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Rule and message of each finding about one resource."""
    request = analyzer_pb2.AnalyzeRequest(
        type=kind,
        properties=_struct(props),
        urn=_urn(kind, "one"),
        name="one",
        options=analyzer_pb2.AnalyzerResourceOptions(),
        provider=_provider(),
    )
    response = analyzer.Analyze(request, timeout=SECONDS)
    levels = {one.enforcementLevel for one in response.diagnostics}
    assert levels <= {analyzer_pb2.MANDATORY}
    return [(one.policyName, one.message) for one in response.diagnostics]


def _in_stack(
    kind: str, name: str, props: Mapping[str, Any], **of: str
) -> analyzer_pb2.AnalyzerResource:
    return analyzer_pb2.AnalyzerResource(
        type=kind,
        properties=_struct(props),
        urn=_urn(kind, name),
        name=name,
        options=analyzer_pb2.AnalyzerResourceOptions(),
        provider=_provider(),
        dependencies=[*of.values()],
        propertyDependencies={
            name: analyzer_pb2.AnalyzerPropertyDependencies(urns=[urn]) for name, urn in of.items()
        },
    )


def test_every_rule_is_served(analyzer: analyzer_pb2_grpc.AnalyzerStub):
    info = analyzer.GetAnalyzerInfo(empty_pb2.Empty(), timeout=SECONDS)
    assert info.name == NAME
    assert [one.name for one in info.policies] == [one.name for one in (*RULES, *STACK_RULES)]
    assert {one.enforcementLevel for one in info.policies} == {analyzer_pb2.MANDATORY}


def test_a_cluster_that_is_right_passes(analyzer: analyzer_pb2_grpc.AnalyzerStub):
    assert _analyze(analyzer, CLUSTER, cluster.PUBLIC) == []


def test_an_open_endpoint_is_found(analyzer: analyzer_pb2_grpc.AnalyzerStub):
    opened = changed(cluster.PUBLIC, {"vpcConfig.publicAccessCidrs": ["0.0.0.0/0"]})
    [(rule, message)] = _analyze(analyzer, CLUSTER, opened)
    assert rule == "eks-no-open-endpoint"
    assert "0.0.0.0/0" in message


def test_what_a_preview_does_not_know_hides_nothing_else(
    analyzer: analyzer_pb2_grpc.AnalyzerStub,
):
    preview = changed(
        cluster.PUBLIC,
        {
            "encryptionConfig.provider.keyArn": UNKNOWN,
            "vpcConfig.publicAccessCidrs": [UNKNOWN, "0.0.0.0/0"],
        },
    )
    assert [rule for rule, _ in _analyze(analyzer, CLUSTER, preview)] == ["eks-no-open-endpoint"]


def test_a_key_in_plain_text_is_found_and_a_secret_is_none(
    analyzer: analyzer_pb2_grpc.AnalyzerStub,
):
    pem = "-----BEGIN PRIVATE KEY-----"
    secret = {SIGNATURE: SECRET, "value": pem}
    assert _analyze(analyzer, "tls:index/certRequest:CertRequest", {"privateKeyPem": secret}) == []
    found = _analyze(analyzer, "aws:ssm/parameter:Parameter", {"value": pem})
    assert [rule for rule, _ in found] == ["no-plaintext-keys"]


def test_a_bucket_without_settings_is_found(analyzer: analyzer_pb2_grpc.AnalyzerStub):
    block = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
    request = analyzer_pb2.AnalyzeStackRequest(
        resources=[
            _in_stack(BUCKET, "vault", {"bucket": UNKNOWN}),
            _in_stack(
                block, "block", {"bucket": UNKNOWN, **data.FLAGS}, bucket=_urn(BUCKET, "vault")
            ),
        ]
    )
    response = analyzer.AnalyzeStack(request, timeout=SECONDS)
    assert {one.urn for one in response.diagnostics} == {_urn(BUCKET, "vault")}
    assert {one.policyName for one in response.diagnostics} == {
        "bucket-access-logged",
        "bucket-encrypted",
        "bucket-owner-enforced",
        "bucket-tls-only",
        "bucket-versioned",
    }
