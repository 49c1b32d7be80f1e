"""The pack over what the program registers."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as k8s
import pytest

from tests.infra import stacks
from tests.infra.conftest import Config
from tests.infra.policy.check import violations
from tests.infra.recording import Recording, record


def test_the_local_stack_breaks_no_rule(recording: Recording):
    assert violations(recording) == []


def test_a_preview_breaks_no_rule(federation: Config):
    assert violations(record(federation, preview=True)) == []


@pytest.mark.parametrize("stack", stacks.AWS)
def test_the_stacks_on_aws_break_no_rule(stack: str):
    assert violations(stacks.recorded(stack)) == []


@pytest.mark.parametrize("stack", stacks.AWS)
def test_first_previews_on_aws_break_no_rule(stack: str):
    assert violations(stacks.previewed(stack)) == []


@pytest.mark.parametrize(
    ("kind", "name", "broken"),
    [
        (":BucketPublicAccessBlock", "", "bucket-public-access-blocked: aws:s3/bucket:Bucket {}"),
        (":BucketVersioning", "", "bucket-versioned: aws:s3/bucket:Bucket {}"),
        (
            ":BucketServerSideEncryptionConfiguration",
            "",
            "bucket-encrypted: aws:s3/bucket:Bucket {}",
        ),
        (":BucketPolicy", "", "bucket-tls-only: aws:s3/bucket:Bucket {}"),
        (":BucketLogging", "", "bucket-access-logged: aws:s3/bucket:Bucket {}"),
        (":BucketOwnershipControls", "", "bucket-owner-enforced: aws:s3/bucket:Bucket {}"),
        (":DefaultSecurityGroup", "", "network-default-group-empty: aws:ec2/vpc:Vpc {party}-vpc"),
        (":FlowLog", "", "network-flow-logs: aws:ec2/vpc:Vpc {party}-vpc"),
        (
            ":ResolverFirewallRuleGroupAssociation",
            "",
            "network-dns-firewall: aws:ec2/vpc:Vpc {party}-vpc",
        ),
        (
            ":NetworkPolicy",
            "-default-deny",
            "namespace-default-deny: kubernetes:core/v1:Namespace {party}",
        ),
    ],
)
def test_one_setting_less_is_told_of_what_it_belongs_to(kind: str, name: str, broken: str):
    """In what the program really registers, and of nothing in another party."""
    recording = stacks.recorded("dev")
    settings = [one for one in recording.all(kind) if one.name.endswith(name)]
    assert settings
    for left_out in settings:
        party = left_out.name.partition("-")[0]
        rest = {urn: one for urn, one in recording.resources.items() if urn != left_out.urn}
        found = violations(Recording(rest))
        told = f"{broken.format(left_out.name, party=party)}: "
        assert any(line.startswith(told) for line in found)
        assert all(f" {party}" in line for line in found)


def test_what_breaks_a_rule_is_told():
    def program() -> None:
        cluster = k8s.Provider("cluster", kubeconfig="{}")
        k8s.core.v1.ConfigMap(
            "careless",
            metadata={"name": "careless", "namespace": "heart-north"},
            data={"key": "-----BEGIN PRIVATE KEY-----"},
            opts=pulumi.ResourceOptions(provider=cluster),
        )
        k8s.core.v1.Namespace("open", metadata={"name": "open"})

    found = violations(record({}, program=program))
    assert [line.partition(":")[0] for line in found] == [
        "account-explicit-provider",
        "namespace-default-deny",
        "namespace-restricted",
        "no-plaintext-keys",
    ]
    assert "kubernetes:core/v1:Namespace open: " in found[0]


def test_a_key_that_is_kept_secret_is_none_in_plain_text():
    def program() -> None:
        k8s.core.v1.ConfigMap(
            "careful",
            metadata={"name": "careful", "namespace": "heart-north"},
            data={"key": pulumi.Output.secret("-----BEGIN PRIVATE KEY-----")},
            opts=pulumi.ResourceOptions(provider=k8s.Provider("cluster", kubeconfig="{}")),
        )

    assert violations(record({}, program=program)) == []


@pytest.mark.parametrize("left_out", ["namespace-restricted", "namespace-default-deny"])
def test_a_rule_can_be_left_out(left_out: str):
    def program() -> None:
        k8s.core.v1.Namespace("open", metadata={"name": "open"})

    found = violations(record({}, program=program), without=[left_out])
    assert len(found) == 2
    assert not any(line.startswith(left_out) for line in found)
