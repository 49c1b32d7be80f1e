from __future__ import annotations

import json
from typing import Any

from infra.policy import data
from infra.policy.values import UNKNOWN
from tests.infra.policy.case import ABSENT, Case, case, never, resource, stack_case

_ARN = "arn:aws:s3:::vault-1"
_LOGGING = "aws:s3/bucketLogging:BucketLogging"
_ENCRYPTION = (
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
)
_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
_OWNERSHIP = "aws:s3/bucketOwnershipControls:BucketOwnershipControls"
_VERSIONING = "aws:s3/bucketVersioning:BucketVersioning"
_BUCKET = data.BUCKETS[0]
VAULT = resource(_BUCKET, {}, "vault", ids=frozenset(["vault-1", _ARN]))
LOGS = resource(_BUCKET, {}, "logs", ids=frozenset(["logs-1", "arn:aws:s3:::logs-1"]))
FLAGS = {
    "blockPublicAcls": True,
    "blockPublicPolicy": True,
    "ignorePublicAcls": True,
    "restrictPublicBuckets": True,
}
TLS_ONLY = {
    "Sid": "TlsOnly",
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": [_ARN, f"{_ARN}/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}


def _encryption(algorithm: str, key: str | None) -> dict[str, Any]:
    default = {"sseAlgorithm": algorithm} | ({"kmsMasterKeyId": key} if key else {})
    return {"rules": [{"applyServerSideEncryptionByDefault": default, "bucketKeyEnabled": True}]}


def _policy(**change: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{**TLS_ONLY, **change}]})


_DEFAULT = "rules.0.applyServerSideEncryptionByDefault"

_BUCKETS: list[Case] = [
    stack_case(
        data.public_access,
        {"vault": VAULT, "block": resource(_BLOCK, {"bucket": "vault-1", **FLAGS}, "block")},
        none={"block": ABSENT},
        other={"block": {"bucket": "logs-1"}},
        one={"block": {"restrictPublicBuckets": False}},
        three={"block": {"ignorePublicAcls": ABSENT}},
    ),
    stack_case(
        data.versioned,
        {
            "vault": VAULT,
            "versioning": resource(
                _VERSIONING,
                {"bucket": "vault-1", "versioningConfiguration": {"status": "Enabled"}},
                "versioning",
            ),
        },
        none={"versioning": ABSENT},
        suspended={"versioning": {"versioningConfiguration.status": "Suspended"}},
    ),
    stack_case(
        data.encrypted,
        {
            "vault": VAULT,
            "logs": LOGS,
            "logging": resource(
                _LOGGING, {"bucket": "vault-1", "targetBucket": "logs-1"}, "logging"
            ),
            "vault-key": resource(
                _ENCRYPTION, {"bucket": "vault-1", **_encryption("aws:kms", "arn:key")}, "vault-key"
            ),
            "logs-key": resource(
                _ENCRYPTION, {"bucket": "logs-1", **_encryption("AES256", None)}, "logs-key"
            ),
        },
        none={"vault-key": ABSENT},
        logs={"logs-key": ABSENT},
        s3={"vault-key": {f"{_DEFAULT}.sseAlgorithm": "AES256"}},
        shared_key={"vault-key": {f"{_DEFAULT}.kmsMasterKeyId": ABSENT}},
        empty={"vault-key": {"rules": []}},
        takes_no_logs={"logging": ABSENT},
    ),
    stack_case(
        data.tls_only,
        {
            "vault": VAULT,
            "policy": resource(data.POLICY, {"bucket": "vault-1", "policy": _policy()}, "policy"),
        },
        none={"policy": ABSENT},
        allows={"policy": {"policy": _policy(Effect="Allow")}},
        objects={"policy": {"policy": _policy(Resource=f"{_ARN}/*")}},
        bucket={"policy": {"policy": _policy(Resource=_ARN)}},
        reading={"policy": {"policy": _policy(Action="s3:GetObject")}},
        inverted={
            "policy": {"policy": _policy(Condition={"Bool": {"aws:SecureTransport": "true"}})}
        },
        somebody={"policy": {"policy": _policy(Principal={"AWS": "arn:aws:iam::1:role/x"})}},
        more_conditions={
            "policy": {
                "policy": _policy(
                    Condition={
                        "Bool": {"aws:SecureTransport": "false"},
                        "StringEquals": {"aws:SourceVpc": "vpc-1"},
                    }
                )
            }
        },
    ),
    stack_case(
        data.logged,
        {
            "vault": VAULT,
            "logs": LOGS,
            "logging": resource(
                _LOGGING, {"bucket": "vault-1", "targetBucket": "logs-1"}, "logging"
            ),
        },
        none={"logging": ABSENT},
        nowhere={"logging": {"targetBucket": ""}},
    ),
    stack_case(
        data.ownership,
        {
            "vault": VAULT,
            "owner": resource(
                _OWNERSHIP,
                {"bucket": "vault-1", "rule": {"objectOwnership": "BucketOwnerEnforced"}},
                "owner",
            ),
        },
        none={"owner": ABSENT},
        preferred={"owner": {"rule.objectOwnership": "BucketOwnerPreferred"}},
    ),
    # A first preview knows no names: by what the property comes from, ...
    stack_case(
        data.public_access,
        {
            "vault": VAULT,
            "block": resource(
                _BLOCK,
                {"bucket": UNKNOWN, **FLAGS},
                "block",
                references={"bucket": frozenset([VAULT.urn])},
            ),
        },
        one={"block": {"restrictPublicBuckets": False}},
    ),
    # ... or where that is not recorded, by what it comes after.
    stack_case(
        data.public_access,
        {
            "vault": VAULT,
            "block": resource(
                _BLOCK, {"bucket": UNKNOWN, **FLAGS}, "block", dependencies=frozenset([VAULT.urn])
            ),
        },
        one={"block": {"restrictPublicBuckets": False}},
    ),
]

_RESOURCES: list[Case] = [
    case(
        data.foreign,
        data.POLICY,
        {"policy": _policy(Principal={"AWS": "arn:aws:iam::333333333333:root"})},
        account={
            "policy": _policy(Effect="Allow", Principal={"AWS": "arn:aws:iam::333333333333:root"})
        },
    ),
    case(
        data.foreign,
        data.POLICY,
        {"policy": _policy(Effect="Allow", Principal={"Service": "logging.s3.amazonaws.com"})},
        role={
            "policy": _policy(Effect="Allow", Principal={"AWS": "arn:aws:iam::333333333333:role/x"})
        },
    ),
    never(
        data.shared,
        "aws:ec2/amiLaunchPermission:AmiLaunchPermission",
        "aws:ec2/snapshotCreateVolumePermission:SnapshotCreateVolumePermission",
        "aws:ram/resourceShare:ResourceShare",
        "aws:s3/bucketReplicationConfig:BucketReplicationConfig",
    ),
    case(data.acl, _BUCKET, {"acl": "private"}, public={"acl": "public-read"}),
    case(
        data.acl,
        "aws:s3/bucketAcl:BucketAcl",
        {"bucket": "vault-1"},
        authenticated={"acl": "authenticated-read"},
        group={
            "accessControlPolicy": {"grants": [{"grantee": {"uri": "AllUsers", "type": "Group"}}]}
        },
    ),
    case(
        data.rotated,
        "aws:kms/key:Key",
        {"enableKeyRotation": True},
        default={"enableKeyRotation": ABSENT},
        off={"enableKeyRotation": False},
    ),
    case(
        data.deletion,
        "aws:kms/key:Key",
        {"deletionWindowInDays": 7},
        soon={"deletionWindowInDays": 6},
        lockout={"bypassPolicyLockoutSafetyCheck": True},
    ),
    case(
        data.log_groups,
        "aws:cloudwatch/logGroup:LogGroup",
        {"retentionInDays": 365, "kmsKeyId": "arn:key"},
        default={"retentionInDays": ABSENT},
        for_ever={"retentionInDays": 0},
        plain={"kmsKeyId": ABSENT},
    ),
    case(
        data.messages,
        "aws:sns/topic:Topic",
        {"kmsMasterKeyId": "arn:key"},
        plain={"kmsMasterKeyId": ABSENT},
    ),
    case(
        data.messages,
        "aws:sqs/queue:Queue",
        {"kmsMasterKeyId": "arn:key"},
        plain={"kmsMasterKeyId": ""},
    ),
    case(
        data.images,
        "aws:ecr/repository:Repository",
        {
            "imageTagMutability": "IMMUTABLE",
            "imageScanningConfiguration": {"scanOnPush": True},
            "encryptionConfigurations": [{"encryptionType": "KMS", "kmsKey": "arn:key"}],
        },
        default={"imageTagMutability": ABSENT},
        mutable={"imageTagMutability": "MUTABLE"},
        unscanned={"imageScanningConfiguration.scanOnPush": False},
        default_key={"encryptionConfigurations": ABSENT},
        aes={"encryptionConfigurations.0.encryptionType": "AES256"},
        shared_key={"encryptionConfigurations.0.kmsKey": ABSENT},
    ),
    case(
        data.volumes,
        "aws:ebs/volume:Volume",
        {"encrypted": True},
        default={"encrypted": ABSENT},
        plain={"encrypted": False},
    ),
    case(
        data.volumes,
        "aws:efs/fileSystem:FileSystem",
        {"encrypted": True},
        plain={"encrypted": False},
    ),
]

CASES = [*_BUCKETS, *_RESOURCES]
