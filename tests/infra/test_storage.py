"""Buckets: who reaches them, by which way, and how what lies there is encrypted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.keys import Key
from infra.storage import AccessLogs, Bucket, location

from . import aws, iam
from .recording import Recording, record

with warnings.catch_warnings():
    # On being loaded it warns of classes of its own, whoever does not use them.
    warnings.simplefilter("ignore", DeprecationWarning)
    assert pulumi_aws.s3.Bucket

NORTH, OTHER = aws.IDS["north"], "999999999999"
HIS, THEIRS = f"arn:aws:iam::{NORTH}:role/doctor", f"arn:aws:iam::{OTHER}:role/doctor"
KEY = f"arn:aws:kms:{aws.REGION}:000000000000:key/north-data"
VAULT, LOGS = "north-vault", "north-access-logs"
BOTH = pytest.mark.parametrize("name", [VAULT, LOGS])
SSE = "s3:x-amz-server-side-encryption"
DELIVERY = "logging.s3.amazonaws.com"
SECURE = {
    "aws:SecureTransport": "true",
    "s3:TlsVersion": "1.3",
    "aws:PrincipalIsAWSService": "false",
}
FROM_INSIDE = {**SECURE, "aws:PrincipalAccount": NORTH}


def made(protect: bool = False, preview: bool = False, **more: Any) -> Recording:
    """A vault, and the access logs."""

    def program() -> None:
        account, opts = aws.account(), pulumi.ResourceOptions()
        key = Key("data", account, opts, protect=False)
        logs = AccessLogs(account, opts, protect=protect)
        bucket = Bucket("vault", account, key, logs, opts, protect=protect, **more)
        pulumi.export("name", bucket.name)
        pulumi.export("arn", bucket.arn)
        pulumi.export("logs", logs.name)

    return record({}, program=program, preview=preview)


@pytest.fixture(scope="module")
def buckets() -> Recording:
    """Both, unprotected."""
    return made()


def decided(
    buckets: Recording,
    name: str,
    context: Mapping[str, str],
    action: str = "s3:PutObject",
    principal: str = HIS,
) -> str:
    """What the bucket's policy says of an object in it."""
    policy = buckets.of(":BucketPolicy", name).properties["policy"]
    place = f"arn:aws:s3:::{name}-0123abc/data/rows.csv"
    return iam.decision(policy, action, place, context, principal)


@BOTH
def test_a_bucket_is_not_public(buckets: Recording, name: str):
    assert buckets.of(":BucketPublicAccessBlock", name).properties == {
        "bucket": f"{name}-0123abc",
        "blockPublicAcls": True,
        "blockPublicPolicy": True,
        "ignorePublicAcls": True,
        "restrictPublicBuckets": True,
    }
    owner = buckets.of(":BucketOwnershipControls", name).properties["rule"]
    assert owner == {"objectOwnership": "BucketOwnerEnforced"}


@BOTH
def test_a_bucket_keeps_versions(buckets: Recording, name: str):
    versioning = buckets.of(":BucketVersioning", name).properties
    assert versioning["versioningConfiguration"] == {"status": "Enabled"}


@BOTH
def test_a_policy_comes_after_what_aws_will_not_have_changed_meanwhile(
    buckets: Recording, name: str
):
    policy = buckets.of(":BucketPolicy", name)
    block = buckets.of(":BucketPublicAccessBlock", name)
    owner = buckets.of(":BucketOwnershipControls", name)
    assert {block.urn, owner.urn} <= {*policy.dependencies}
    assert block.urn in owner.dependencies
    lifecycle = buckets.of(":BucketLifecycleConfiguration", name)
    assert buckets.of(":BucketVersioning", name).urn in lifecycle.dependencies


def encryption(buckets: Recording, name: str) -> dict[str, Any]:
    """The rule of a bucket's encryption."""
    (rule,) = buckets.of(":BucketServerSideEncryptionConfiguration", name).properties["rules"]
    return rule


def test_a_vault_is_encrypted_with_the_partys_key(buckets: Recording):
    rule = encryption(buckets, VAULT)
    default = {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": KEY}
    assert rule["applyServerSideEncryptionByDefault"] == default
    assert rule["bucketKeyEnabled"] is True
    assert rule["blockedEncryptionTypes"] == ["SSE-C"]


def test_access_logs_are_encrypted_as_log_delivery_can(buckets: Recording):
    rule = encryption(buckets, LOGS)["applyServerSideEncryptionByDefault"]
    assert rule["sseAlgorithm"] == "AES256"
    assert rule["kmsMasterKeyId"] is None


@BOTH
@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"])
def test_nobody_comes_without_tls(buckets: Recording, name: str, action: str):
    for bad in ({"aws:SecureTransport": "false"}, {"s3:TlsVersion": "1.1"}):
        assert decided(buckets, name, FROM_INSIDE | bad, action) == "Deny"
    assert decided(buckets, name, FROM_INSIDE | {"s3:TlsVersion": "1.2"}, action) == ""


@BOTH
@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject", "s3:PutObjectAcl"])
def test_nobody_comes_from_another_account(buckets: Recording, name: str, action: str):
    there = {**SECURE, "aws:PrincipalAccount": OTHER}
    assert decided(buckets, name, there, action, THEIRS) == "Deny"
    # Who does not say who he is has neither an account nor a service.
    nameless = {"aws:SecureTransport": "true", "s3:TlsVersion": "1.3"}
    assert decided(buckets, name, nameless, action, "anonymous") == "Deny"


@BOTH
def test_the_bucket_itself_is_closed_as_well(buckets: Recording, name: str):
    policy = buckets.of(":BucketPolicy", name).properties["policy"]
    place = f"arn:aws:s3:::{name}-0123abc"
    for bad in ({"aws:SecureTransport": "false"}, {"aws:PrincipalAccount": OTHER}):
        assert iam.decision(policy, "s3:ListBucket", place, FROM_INSIDE | bad, HIS) == "Deny"


def test_only_log_delivery_for_this_account_is_let_in(buckets: Recording):
    service = {
        "aws:SecureTransport": "true",
        "aws:PrincipalIsAWSService": "true",
        "aws:SourceAccount": NORTH,
    }
    assert decided(buckets, LOGS, service, principal=DELIVERY) == "Allow"
    elsewhere = service | {"aws:SourceAccount": OTHER}
    assert decided(buckets, LOGS, elsewhere, principal=DELIVERY) == ""
    assert decided(buckets, LOGS, service, principal="cloudtrail.amazonaws.com") == ""
    assert decided(buckets, LOGS, service, "s3:GetObject", DELIVERY) == ""
    # Nothing is delivered into a vault.
    assert decided(buckets, VAULT, service, principal=DELIVERY) == "Deny"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, ""),  # the default encrypts it
        ({"": "aws:kms", "-aws-kms-key-id": KEY}, ""),
        ({"": "AES256"}, "Deny"),
        ({"": "aws:kms"}, "Deny"),  # S3 would take its own key
        ({"": "aws:kms", "-aws-kms-key-id": KEY + "0"}, "Deny"),
        ({"-aws-kms-key-id": KEY + "0"}, "Deny"),
        ({"": "aws:kms:dsse", "-aws-kms-key-id": KEY}, "Deny"),
        ({"-customer-algorithm": "AES256"}, "Deny"),
    ],
)
def test_who_names_an_encryption_names_the_buckets(
    buckets: Recording, headers: dict[str, str], expected: str
):
    context = FROM_INSIDE | {f"{SSE}{name}": value for name, value in headers.items()}
    assert decided(buckets, VAULT, context) == expected


def test_a_policy_lets_nobody_in_whom_the_account_does_not(buckets: Recording):
    for name, expected in ((VAULT, set()), (LOGS, {"LogDelivery"})):
        named = iam.statements(buckets.of(":BucketPolicy", name).properties["policy"])
        assert {sid for sid, one in named.items() if one["Effect"] == "Allow"} == expected


def test_who_reached_a_vault_is_written_down(buckets: Recording):
    logging = buckets.of(":BucketLogging")
    assert logging.properties == {
        "bucket": "north-vault-0123abc",
        "targetBucket": "north-access-logs-0123abc",
        "targetPrefix": "vault/",
    }
    assert buckets.of(":BucketPolicy", LOGS).urn in logging.dependencies


def lifecycle(buckets: Recording, name: str) -> dict[str, Any]:
    """The rule of a bucket's lifecycle."""
    (rule,) = buckets.of(":BucketLifecycleConfiguration", name).properties["rules"]
    assert rule["status"] == "Enabled"
    assert rule["filter"] == {}
    assert rule["abortIncompleteMultipartUpload"] == {"daysAfterInitiation": 7}
    return rule


def test_what_is_current_stays_in_a_vault():
    rule = lifecycle(made(expire_noncurrent_days=10), VAULT)
    assert rule["noncurrentVersionExpiration"] == {"noncurrentDays": 10}
    assert rule["expiration"] == {"expiredObjectDeleteMarker": True}


def test_access_logs_go_after_a_year(buckets: Recording):
    assert lifecycle(buckets, LOGS)["expiration"] == {"days": 365}


@BOTH
@pytest.mark.parametrize("protect", [True, False])
def test_protected_buckets_do_not_go_with_what_they_hold(name: str, protect: bool):
    bucket = made(protect).of("bucket:Bucket", name)
    assert bucket.protect is protect
    assert bucket.properties["forceDestroy"] is not protect


@pytest.mark.parametrize("preview", [False, True])
def test_all_is_made_by_the_partys_provider(preview: bool):
    made_here = [one for one in made(preview=preview).resources.values() if "aws:s3" in one.kind]
    assert len(made_here) == 15
    assert all(one.provider.endswith("::north-aws") for one in made_here)


def test_names_leave_room_for_pulumis_suffix():
    def program() -> None:
        silo = "n" * 61
        account = aws.account(name=silo)
        account = type(account)(**{**vars(account), "party": silo})
        AccessLogs(account, pulumi.ResourceOptions(), protect=False)

    assert len(record({}, program=program).of("bucket:Bucket").name) + len("-0123abc") <= 63


PREFIX = st.lists(st.text(st.characters(codec="ascii", exclude_characters="/"), min_size=1))


@given(bucket=st.from_regex(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", fullmatch=True), parts=PREFIX)
def test_a_location_is_bucket_and_prefix(bucket: str, parts: list[str]):
    prefix = "/".join(parts)
    for url in (f"s3://{bucket}/{prefix}", f"s3://{bucket}/{prefix}/"):
        assert location(url) == (f"arn:aws:s3:::{bucket}", prefix)
    assert location(f"s3://{bucket}") == (f"arn:aws:s3:::{bucket}", "")
