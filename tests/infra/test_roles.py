"""What the pods' roles may do: what their services do, where they do it, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import botocore.session
import pulumi
import pytest

from fl_core import own_data
from fl_core.tracking import experiments
from infra.policies import Statement, document
from infra.roles import PodRole, artifacts_access, tracking, vault_access

from . import aws, iam
from .recording import Recording, record

if TYPE_CHECKING:
    from infra.cluster import Cluster

NORTH, OTHER = aws.IDS["north"], "999999999999"
BUCKET = "arn:aws:s3:::north-vault"
KEY = f"arn:aws:kms:{aws.REGION}:{NORTH}:key/1"
CLUSTER = f"arn:aws:eks:{aws.REGION}:{NORTH}:cluster/heart-north"
CONTEXT = "kms:EncryptionContext:aws:s3:arn"


def made(party: str = "north", preview: bool = False) -> Recording:
    """The role of an agent."""

    def program() -> None:
        account = aws.account(**({} if party == "north" else {"name": party}))
        account = type(account)(**{**vars(account), "party": party})
        cluster = cast("Cluster", SimpleNamespace(name="heart-north-0123", arn=CLUSTER))
        statements = vault_access(BUCKET, "data", KEY)
        role = PodRole(
            "agent", account, cluster, "heart-north", statements, pulumi.ResourceOptions()
        )
        pulumi.export("arn", role.arn)

    return record({}, program=program, preview=preview)


@pytest.fixture(scope="module")
def role() -> Recording:
    """That one."""
    return made()


def policy_of(statements: Callable[[], Sequence[Statement]]) -> str:
    """The document of statements, outputs and all."""
    found = record({}, program=lambda: pulumi.export("policy", document(*statements())))
    return found.outputs["policy"]


TRUSTED = {
    "aws:SourceAccount": NORTH,
    "aws:SourceArn": CLUSTER,
    "aws:RequestTag/kubernetes-namespace": "heart-north",
    "aws:RequestTag/kubernetes-service-account": "agent",
}


def test_the_role_is_for_one_service_account_of_one_cluster(role: Recording):
    trust = role.of("role:Role").properties["assumeRolePolicy"]
    pods = "pods.eks.amazonaws.com"
    for action in ("sts:AssumeRole", "sts:TagSession"):
        assert iam.decision(trust, action, "", TRUSTED, pods) == "Allow"
        assert iam.decision(trust, action, "", TRUSTED, "ec2.amazonaws.com") == ""
        for key in TRUSTED:
            assert iam.decision(trust, action, "", TRUSTED | {key: "other"}, pods) == ""
            without = {name: value for name, value in TRUSTED.items() if name != key}
            assert iam.decision(trust, action, "", without, pods) == ""
    assert iam.decision(trust, "sts:AssumeRoleWithWebIdentity", "", TRUSTED, pods) == ""


def test_the_role_is_below_the_boundary(role: Recording):
    properties = role.of("role:Role").properties
    assert properties["path"] == "/fl-silos/"
    assert properties["permissionsBoundary"] == f"arn:aws:iam::{NORTH}:policy/fl-silos/boundary"
    assert "managedPolicyArns" not in properties


def test_the_role_is_given_to_the_pods_when_it_may_do_something(role: Recording):
    association = role.of(":PodIdentityAssociation")
    assert association.properties == {
        "clusterName": "heart-north-0123",
        "namespace": "heart-north",
        "serviceAccount": "agent",
        "roleArn": role.outputs["arn"],
    }
    assert role.of(":RolePolicy").urn in association.dependencies


@pytest.mark.parametrize("preview", [False, True])
def test_all_is_made_by_the_partys_provider(preview: bool):
    resources = made(preview=preview).resources.values()
    made_here = [one for one in resources if one.kind.startswith("aws:")]
    assert len(made_here) == 3
    assert all(one.provider.endswith("::north-aws") for one in made_here)


def test_a_roles_name_leaves_room_for_pulumis_suffix():
    assert len(made("n" * 61).of("role:Role").name) + len("-0123abc") <= 64


class _S3:
    """Writes down what is asked of S3; has one object."""

    def __init__(self) -> None:
        self.listed: list[dict[str, Any]] = []
        self.read: list[dict[str, Any]] = []

    def get_paginator(self, operation: str) -> _S3:
        assert operation == "list_objects_v2"
        return self

    def paginate(self, **given: Any) -> list[dict[str, Any]]:
        self.listed.append(given)
        rows = {"Key": f"{given['Prefix']}rows.csv", "Size": 1, "ETag": "e"}
        return [{"Contents": [rows]}]

    def get_object(self, **given: Any) -> dict[str, Any]:
        self.read.append(given)
        return {"Body": io.BytesIO(b"1")}


@pytest.mark.parametrize("prefix", ["data", "a/b", "what*?", "$x", "${aws:username}", ""])
def test_the_agent_may_read_as_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
):
    asked = _S3()
    monkeypatch.setattr(own_data, "_client", lambda where: asked)
    with own_data.folder_of(f"s3://north-vault/{prefix}", tmp_path):
        pass
    policy = policy_of(lambda: vault_access(BUCKET, prefix, KEY))
    (listed,), (read,) = asked.listed, asked.read
    context = {"s3:prefix": listed["Prefix"]}
    assert iam.decision(policy, "s3:ListBucket", BUCKET, context) == "Allow"
    assert iam.decision(policy, "s3:GetObject", f"{BUCKET}/{read['Key']}") == "Allow"


@pytest.mark.parametrize(
    ("prefix", "others"),
    [("data", ["", "data", "data-2/", "dat/"]), ("a*", ["ab/", "a*b/"]), ("a$", ["a/", "a$b/"])],
)
def test_the_agent_reads_nothing_beside_its_prefix(prefix: str, others: list[str]):
    policy = policy_of(lambda: vault_access(BUCKET, prefix, KEY))
    assert iam.decision(policy, "s3:ListBucket", BUCKET) == ""
    for other in others:
        assert iam.decision(policy, "s3:ListBucket", BUCKET, {"s3:prefix": other}) == ""
        assert iam.decision(policy, "s3:GetObject", f"{BUCKET}/{other}rows.csv") == ""
    assert iam.decision(policy, "s3:GetObject", f"{BUCKET}-2/{prefix}/rows.csv") == ""
    for action in ("s3:PutObject", "s3:DeleteObject", "s3:GetBucketPolicy"):
        assert iam.decision(policy, action, f"{BUCKET}/{prefix}/rows.csv") == ""


def in_s3(place: str, region: str = aws.REGION) -> dict[str, str]:
    """What KMS is told when S3 uses a key for a place."""
    return {"kms:ViaService": f"s3.{region}.amazonaws.com", CONTEXT: place}


@pytest.mark.parametrize("place", [BUCKET, f"{BUCKET}/data/rows.csv"])
def test_the_agent_decrypts_what_it_reads(place: str):
    policy = policy_of(lambda: vault_access(BUCKET, "data", KEY))
    assert iam.decision(policy, "kms:Decrypt", KEY, in_s3(place)) == "Allow"


def test_the_agent_decrypts_nothing_else():
    policy = policy_of(lambda: vault_access(BUCKET, "data", KEY))
    for key, value in in_s3(BUCKET).items():
        assert iam.decision(policy, "kms:Decrypt", KEY, {key: value}) == ""
    assert iam.decision(policy, "kms:Decrypt", KEY + "0", in_s3(BUCKET)) == ""
    assert iam.decision(policy, "kms:Decrypt", KEY, in_s3(f"{BUCKET}-2")) == ""
    assert iam.decision(policy, "kms:Decrypt", KEY, in_s3(f"{BUCKET}/data-2/rows.csv")) == ""
    assert iam.decision(policy, "kms:Decrypt", KEY, in_s3(BUCKET, "us-east-1")) == ""
    assert iam.decision(policy, "kms:GenerateDataKey", KEY, in_s3(BUCKET)) == ""


def test_a_bucket_without_a_key_needs_none():
    assert "kms" not in policy_of(lambda: vault_access(BUCKET, "data", None))


def test_the_coordinator_keeps_artifacts_of_runs():
    policy = policy_of(lambda: artifacts_access(BUCKET, KEY))
    for action in experiments.ARTIFACT_ACTIONS:
        assert iam.decision(policy, action, f"{BUCKET}/runs/1/model") == "Allow"
        assert iam.decision(policy, action, f"{BUCKET}/data/rows.csv") == ""
        assert iam.decision(policy, action, f"{BUCKET}-2/runs/1/model") == ""
    for action in ("s3:GetObject", "s3:DeleteObject", "s3:DeleteObjectVersion"):
        assert iam.decision(policy, action, f"{BUCKET}/runs/1/model") == ""
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        for place in (BUCKET, f"{BUCKET}/runs/1/model"):
            assert iam.decision(policy, action, KEY, in_s3(place)) == "Allow"
        assert iam.decision(policy, action, KEY) == ""
        assert iam.decision(policy, action, KEY + "0", in_s3(BUCKET)) == ""


EXPERIMENT = "heart-client-north"


@pytest.fixture(scope="module")
def tracked() -> str:
    """The policy for writing into an experiment."""
    return policy_of(lambda: tracking(aws.account(), EXPERIMENT))


def sagemaker(kind: str, name: str, account: str = NORTH, region: str = aws.REGION) -> str:
    """An ARN."""
    return f"arn:aws:sagemaker:{region}:{account}:{kind}/{name}"


def named(experiment: str) -> dict[str, str]:
    """One resource of each kind in an experiment."""
    run = "demo-20261122-101112-0123abcd"
    return {
        experiments.EXPERIMENT: experiment,
        experiments.TRIAL: experiments.trial(experiment),
        experiments.COMPONENT: experiments.component(experiment, run),
    }


def tagging(action: str) -> list[dict[str, str]]:
    """The contexts in which an action is asked for."""
    if action != "AddTags":
        return [{}]
    return [{"sagemaker:TaggingAction": one} for one in experiments.TAGGING]


@pytest.mark.parametrize("action", experiments.ACTIONS)
def test_actions_are_allowed_on_just_their_kinds_of_resource(tracked: str, action: str):
    for context in tagging(action):
        for kind, name in named(EXPERIMENT).items():
            expected = "Allow" if kind in experiments.ACTIONS[action] else ""
            arn = sagemaker(kind, name)
            assert iam.decision(tracked, f"sagemaker:{action}", arn, context) == expected


@pytest.mark.parametrize("action", experiments.ACTIONS)
@pytest.mark.parametrize("other", ["heart-client-south", "heart-aggregator", "heart-client-nort"])
def test_other_experiments_are_out_of_reach(tracked: str, action: str, other: str):
    for context in tagging(action):
        for kind, name in named(other).items():
            arn = sagemaker(kind, name)
            assert iam.decision(tracked, f"sagemaker:{action}", arn, context) == ""
        for kind, name in named(EXPERIMENT).items():
            for arn in (
                sagemaker(kind, name, account=OTHER),
                sagemaker(kind, name, region="us-east-1"),
            ):
                assert iam.decision(tracked, f"sagemaker:{action}", arn, context) == ""


def test_tags_are_given_at_the_start_and_not_changed(tracked: str):
    arn = sagemaker(experiments.EXPERIMENT, EXPERIMENT)
    assert iam.decision(tracked, "sagemaker:AddTags", arn) == ""
    assert (
        iam.decision(tracked, "sagemaker:AddTags", arn, {"sagemaker:TaggingAction": "CreateModel"})
        == ""
    )


def test_no_statement_is_about_all(tracked: str, role: Recording):
    for policy in (tracked, role.of(":RolePolicy").properties["policy"]):
        for statement in iam.statements(policy).values():
            for resource in statement["Resource"]:
                assert resource.startswith(("arn:aws:sagemaker:", BUCKET, "arn:aws:kms:"))
            for action in statement["Action"]:
                assert "*" not in action
    # What IAM takes of a role's own policies.
    assert len(tracked) < 5000


def test_a_trial_may_be_named_in_small_letters(tracked: str):
    arn = sagemaker(experiments.TRIAL, experiments.trial(EXPERIMENT).lower())
    assert iam.decision(tracked, "sagemaker:AssociateTrialComponent", arn) == "Allow"


def test_actions_are_such_that_sagemaker_has():
    session = botocore.session.get_session()
    known = {
        operation
        for service in ("sagemaker", "sagemaker-metrics")
        for operation in cast("list[str]", session.get_service_model(service).operation_names)
    }
    assert {*experiments.ACTIONS} <= known
    assert {*experiments.TAGGING} <= {*experiments.ACTIONS}


def test_the_policy_is_for_every_name_of_a_run(tracked: str):
    run = "r" * 90
    arn = sagemaker(experiments.COMPONENT, experiments.component(EXPERIMENT, run))
    assert iam.decision(tracked, "sagemaker:BatchPutMetrics", arn) == "Allow"
