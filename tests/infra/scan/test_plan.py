"""What the scanners are shown of a recording."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.infra.recording import UNKNOWN, Recording, Secret

from . import made
from .environment import ROOT
from .manifests import manifests
from .plan import plan, terraform_type
from .policies import Attached, policies
from .skips import Explained


def _values(recording: Recording) -> dict[str, dict[str, object]]:
    resources = plan(recording)["planned_values"]["root_module"]["resources"]
    return {one["address"]: one["values"] for one in resources}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("aws:ec2/vpc:Vpc", "aws_vpc"),
        ("aws:ec2/securityGroup:SecurityGroup", "aws_security_group"),
        (
            "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
            "aws_vpc_security_group_egress_rule",
        ),
        ("aws:ec2/vpcEndpointService:VpcEndpointService", "aws_vpc_endpoint_service"),
        ("aws:lb/loadBalancer:LoadBalancer", "aws_lb"),
        ("aws:lb/targetGroup:TargetGroup", "aws_lb_target_group"),
        (
            "aws:eks/podIdentityAssociation:PodIdentityAssociation",
            "aws_eks_pod_identity_association",
        ),
        ("aws:s3/bucketVersioning:BucketVersioning", "aws_s3_bucket_versioning"),
        ("aws:iam/rolePolicyAttachment:RolePolicyAttachment", "aws_iam_role_policy_attachment"),
        ("aws:cloudwatch/metricAlarm:MetricAlarm", "aws_cloudwatch_metric_alarm"),
        (
            "aws:route53/resolverFirewallRuleGroup:ResolverFirewallRuleGroup",
            "aws_route53_resolver_firewall_rule_group",
        ),
        ("aws:budgets/budget:Budget", "aws_budgets_budget"),
    ],
)
def test_types_have_their_names_in_terraform(kind: str, expected: str):
    assert terraform_type(kind) == expected


def test_a_type_that_nobody_has_looked_at_is_an_error():
    with pytest.raises(LookupError, match="aws:rds/instance:Instance: give its Terraform type"):
        plan(made.recording(made.record("aws:rds/instance:Instance", "one")))


def test_objects_become_blocks_and_plurals_of_blocks_singular():
    values = _values(made.good_bucket())
    assert values["aws_s3_bucket_versioning.vault"]["versioning_configuration"] == [
        {"status": "Enabled"}
    ]
    rule = {
        "id": "parts",
        "status": "Enabled",
        "abort_incomplete_multipart_upload": [{"days_after_initiation": 7}],
    }
    assert values["aws_s3_bucket_lifecycle_configuration.vault"]["rule"] == [rule]


def test_a_list_that_is_one_in_terraform_as_well_keeps_its_name():
    values = _values(made.cluster(good=True))["aws_eks_cluster.cluster"]
    assert values["vpc_config"] == [
        {
            "subnet_ids": ["a-id", "b-id"],
            "endpoint_private_access": True,
            "endpoint_public_access": False,
        }
    ]


def test_tags_keep_their_names():
    vpc = made.record("aws:ec2/vpc:Vpc", "net", tags={"costCentre": "one"})
    assert _values(made.recording(vpc)) == {"aws_vpc.net": {"tags": {"costCentre": "one"}}}


def test_what_names_another_resource_becomes_its_address():
    values = _values(made.network(good=True))["aws_vpc_endpoint.sts"]
    assert values["vpc_id"] == "aws_vpc.net.id"
    assert values["security_group_ids"] == [
        "sg-of-somebody-else",
        "aws_security_group.endpoints.id",
    ]


def test_a_part_of_a_name_names_nothing():
    net = made.record("aws:ec2/vpc:Vpc", "net")
    longer = made.record("aws:ec2/vpc:Vpc", "net-two")
    one = made.record("aws:ec2/subnet:Subnet", "one", net, longer, vpcId="net-two-id")
    other = made.record("aws:ec2/subnet:Subnet", "other", net, longer, vpcId="inter-net-id")
    values = _values(made.recording(net, longer, one, other))
    assert values["aws_subnet.one"]["vpc_id"] == "aws_vpc.net-two.id"
    assert values["aws_subnet.other"]["vpc_id"] == "inter-net-id"


def test_of_resources_that_share_a_name_the_one_it_depends_on_is_meant():
    key = made.record("aws:kms/key:Key", "data")
    bucket = made.record("aws:s3/bucket:Bucket", "data")
    alias = made.record("aws:kms/alias:Alias", "data", key, targetKeyId="data-key")
    values = _values(made.recording(key, bucket, alias))
    assert values["aws_kms_alias.data"]["target_key_id"] == "aws_kms_key.data.id"


def test_of_several_that_it_depends_on_the_property_says_which():
    bucket = made.record("aws:s3/bucket:Bucket", "data")
    block = made.record("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", "data", bucket)
    policy = made.record(
        "aws:s3/bucketPolicy:BucketPolicy", "data", bucket, block, bucket="data-id", other="data-id"
    )
    assert _values(made.recording(bucket, block, policy))["aws_s3_bucket_policy.data"] == {
        "bucket": "aws_s3_bucket.data.id",
        "other": "aws_s3_bucket.data.id aws_s3_bucket_public_access_block.data.id",
    }


def test_what_is_not_known_yet_is_null_and_secrets_are_open():
    topic = made.record(
        "aws:sns/topic:Topic", "one", kmsMasterKeyId=UNKNOWN, displayName=Secret("made up")
    )
    assert _values(made.recording(topic))["aws_sns_topic.one"] == {
        "kms_master_key_id": None,
        "display_name": "made up",
    }


def test_manifests_are_the_kubernetes_objects_alone():
    records = made.workload(good=True).resources | made.cluster(good=True).resources
    assert [one["kind"] for one in yaml.safe_load_all(manifests(Recording(records)))] == ["Pod"]


def test_every_policy_is_found():
    found = [(one.where, one.attached) for one in policies(made.policies())]
    assert found == [
        ("aws_ecr_repository_policy.right policy", Attached.RESOURCE),
        ("aws_iam_role.right assumeRolePolicy", Attached.TRUST),
        ("aws_iam_role.right inlinePolicies", Attached.IDENTITY),
        ("aws_iam_role_policy.wrong policy", Attached.IDENTITY),
        ("aws_kms_key_policy.wrong policy", Attached.RESOURCE),
        ("aws_s3_bucket_policy.right policy", Attached.RESOURCE),
    ]


def test_what_looks_like_json_only_is_no_policy():
    text = {"dashboardBody": json.dumps({"widgets": []}), "pattern": "{ $.level = 1 }"}
    board = made.record("aws:cloudwatch/dashboard:Dashboard", "one", **text)
    assert policies(made.recording(board)) == []


def test_a_skip_explains_its_check_and_resources_and_is_stale_otherwise():
    skips = Explained({"A1": "always", "A2 dev/*-logs": "there only", "A3": "no longer"})
    assert skips.explain("A1", "dev/anything")
    assert skips.explain("A2", "dev/bucket.north-logs")
    assert not skips.explain("A2", "dev/bucket.north")
    assert not skips.explain("A2", "prod/bucket.north-logs")
    assert not skips.explain("A4", "dev/anything")
    assert skips.stale == ["A3"]


def test_a_skip_needs_a_reason():
    with pytest.raises(AssertionError, match="A1: no reason given"):
        Explained({"A1": " "})


def test_the_lock_gives_hashes_and_no_index():
    lock = (ROOT / "requirements" / "scan.txt").read_text()
    assert lock.count("==") <= lock.count("--hash=")
    assert "://" not in lock
