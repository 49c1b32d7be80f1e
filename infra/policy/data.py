"""Data: buckets, keys, logs, queues, images and disks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from infra.policy.documents import Statement, statements
from infra.policy.rule import Resource, rule, stack_rule
from infra.policy.values import UNKNOWN, differs, get, items, missing

BUCKETS = ("aws:s3/bucket:Bucket", "aws:s3/bucketV2:BucketV2")
POLICY = "aws:s3/bucketPolicy:BucketPolicy"
_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
_OWNERSHIP = "aws:s3/bucketOwnershipControls:BucketOwnershipControls"
_FLAGS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
_WEEK = 7

Found = Iterator[tuple[Resource, str]]


def _versions(name: str) -> tuple[str, str]:
    """The type tokens of a bucket's setting: pulumi-aws 7 has each under two names."""
    return f"aws:s3/bucket{name}:Bucket{name}", f"aws:s3/bucket{name}V2:Bucket{name}V2"


_VERSIONING, _LOGGING = _versions("Versioning"), _versions("Logging")
_ENCRYPTION = _versions("ServerSideEncryptionConfiguration")


def _each_bucket(
    stack: Sequence[Resource],
    kinds: tuple[str, ...],
    wrong: Callable[[Resource, Resource], Iterator[str]],
) -> Found:
    """Every bucket without a setting of the kinds, and what is wrong with those there are."""
    for bucket in stack:
        if bucket.kind not in BUCKETS:
            continue
        settings = [one for one in stack if one.kind in kinds and one.refers(bucket, "bucket")]
        if not settings:
            yield bucket, f"no {kinds[0].rpartition(':')[2]} refers to the bucket; add one"
        for setting in settings:
            for message in wrong(setting, bucket):
                yield bucket, message


def _takes_logs(bucket: Resource, stack: Sequence[Resource]) -> bool:
    """Whether others' access logs go here: S3 delivers them to no bucket under a KMS key, and one
    that logged its own deliveries would never come to an end."""
    return any(one.kind in _LOGGING and one.refers(bucket, "targetBucket") for one in stack)


@stack_rule("bucket-public-access-blocked")
def public_access(stack: Sequence[Resource]) -> Found:
    """No bucket can be made public, not even by mistake.

    Source: FSBP S3.8.
    """

    def wrong(setting: Resource, _: Resource) -> Iterator[str]:
        for flag in _FLAGS:
            if differs(setting.get(flag), True):
                yield f"{flag} of {setting.name} is not true; set it"

    return _each_bucket(stack, (_BLOCK,), wrong)


@stack_rule("bucket-versioned")
def versioned(stack: Sequence[Resource]) -> Found:
    """What is overwritten or deleted in a bucket can be had back.

    Source: Security Hub S3.14.
    """

    def wrong(setting: Resource, _: Resource) -> Iterator[str]:
        if differs(setting.get("versioningConfiguration", "status"), "Enabled"):
            yield f"versioningConfiguration.status of {setting.name} is not Enabled; set it"

    return _each_bucket(stack, _VERSIONING, wrong)


@stack_rule("bucket-encrypted")
def encrypted(stack: Sequence[Resource]) -> Found:
    """What lies in a bucket is encrypted under the party's key, so that each reading can be denied.

    S3 delivers access logs to no such bucket: theirs has S3's own keys.

    Source: Security Hub S3.17; S3 User Guide, server access logging.
    """

    def wrong(setting: Resource, bucket: Resource) -> Iterator[str]:
        logs = _takes_logs(bucket, stack)
        for given in items(setting.get("rules")):
            default = get(given, "applyServerSideEncryptionByDefault")
            if differs(get(default, "sseAlgorithm"), "aws:kms", *(["AES256"] if logs else [])):
                yield f"sseAlgorithm of {setting.name} is not aws:kms; set it"
            elif not logs and missing(get(default, "kmsMasterKeyId")):
                yield f"kmsMasterKeyId of {setting.name} is missing; give the party's key"
        if missing(setting.get("rules")):
            yield f"rules of {setting.name} is empty; encrypt by default"

    return _each_bucket(stack, _ENCRYPTION, wrong)


@stack_rule("bucket-tls-only")
def tls_only(stack: Sequence[Resource]) -> Found:
    """A bucket refuses requests that are not encrypted on their way.

    Source: FSBP S3.5.
    """

    def wrong(setting: Resource, _: Resource) -> Iterator[str]:
        if setting.get("policy") is UNKNOWN:
            return
        if not any(_denies_plain_http(statement) for statement in statements(setting)):
            yield (
                f"{setting.name} does not deny s3:* to everybody on the bucket and on its objects "
                "where aws:SecureTransport is false; add that statement"
            )

    return _each_bucket(stack, (POLICY,), wrong)


def _denies_plain_http(statement: Statement) -> bool:
    insecure = ("Bool", "aws:securetransport", ["false"])
    resources = statement.resources
    on_bucket = any(not one.endswith("/*") for one in resources)
    on_objects = any(one.endswith("/*") or one == "*" for one in resources)
    return (
        statement.content.get("Effect") == "Deny"
        and "*" in statement.principals("AWS")
        and not {"s3:*", "*"}.isdisjoint(statement.actions)
        and [(op, key, [v.lower() for v in vs]) for op, key, vs in statement.conditions()]
        == [insecure]
        and on_bucket
        and on_objects
    )


@stack_rule("bucket-access-logged")
def logged(stack: Sequence[Resource]) -> Found:
    """Who read and wrote what in a bucket is logged, in another bucket.

    Source: FSBP S3.9.
    """
    keeping = [one for one in stack if not (one.kind in BUCKETS and _takes_logs(one, stack))]

    def wrong(setting: Resource, bucket: Resource) -> Iterator[str]:
        if missing(setting.get("targetBucket")):
            yield f"targetBucket of {setting.name} is missing; give the bucket of access logs"

    return _each_bucket(keeping, _LOGGING, wrong)


@stack_rule("bucket-owner-enforced")
def ownership(stack: Sequence[Resource]) -> Found:
    """Access lists do not count in a bucket: what is in it belongs to its owner, whoever wrote it.

    Source: FSBP S3.12.
    """

    def wrong(setting: Resource, _: Resource) -> Iterator[str]:
        if differs(setting.get("rule", "objectOwnership"), "BucketOwnerEnforced"):
            yield f"rule.objectOwnership of {setting.name} is not BucketOwnerEnforced; set it"

    return _each_bucket(stack, (_OWNERSHIP,), wrong)


@rule("bucket-no-foreign-accounts", POLICY)
def foreign(policy: Resource) -> Iterator[str]:
    """A bucket's policy lets in services of AWS, and no account: its own needs no such permission.

    So no hospital's data is given to another account, not even to the federation's.

    Source: FSBP S3.6.
    """
    for statement in statements(policy):
        if statement.allows and not statement.for_anybody and statement.principals("AWS"):
            yield f"{statement.where} allows {statement.principals('AWS')[0]}; use a role's policy"


@rule(
    "data-not-shared",
    "aws:ram/*:*",
    "aws:ec2/amiLaunchPermission:*",
    "aws:ec2/snapshotCreateVolumePermission:*",
    "aws:s3/bucketReplicationConfig:*",
)
def shared(resource: Resource) -> Iterator[str]:
    """Nothing copies or shares data with another account beside the federation's own protocol.

    Source: AWS data perimeter whitepaper (trusted identities and resources).
    """
    yield f"{resource.kind} shares what is in the account; remove it"


@rule("bucket-no-acl", *BUCKETS, *_versions("Acl"))
def acl(bucket: Resource) -> Iterator[str]:
    """No bucket is opened by an access list.

    Source: FSBP S3.2, S3.3 and S3.12.
    """
    given = bucket.get("acl")
    if given is not UNKNOWN and not missing(given) and given != "private":
        yield f"acl is {given}; remove it"
    by_policy = items(bucket.get("accessControlPolicy", "grants"))
    grantees = [*items(bucket.get("grants")), *(get(grant, "grantee") for grant in by_policy)]
    if any(isinstance(get(grantee, "uri"), str) for grantee in grantees):
        yield "grants names a group, such as everybody; remove it"


@rule("key-rotated", "aws:kms/key:Key")
def rotated(key: Resource) -> Iterator[str]:
    """Keys are renewed every year.

    Source: Security Hub KMS.4; CIS AWS Foundations (rotation of customer keys).
    """
    if differs(key.get("enableKeyRotation"), True):
        yield "enableKeyRotation is not true; set it"


@rule("key-deletion-waits", "aws:kms/key:Key")
def deletion(key: Resource) -> Iterator[str]:
    """A key that is deleted by mistake can be had back for at least a week, and stays manageable.

    Source: FSBP KMS.3; KMS Developer Guide, deleting keys.
    """
    days = key.get("deletionWindowInDays")
    if isinstance(days, int | float) and days < _WEEK:
        yield f"deletionWindowInDays is {days:g}; set it to {_WEEK} or more"
    if key.get("bypassPolicyLockoutSafetyCheck") is True:
        yield "bypassPolicyLockoutSafetyCheck is true; remove it"


@rule("logs-kept-and-encrypted", "aws:cloudwatch/logGroup:LogGroup")
def log_groups(group: Resource) -> Iterator[str]:
    """Logs are encrypted under the party's key, and kept for a time that somebody has chosen.

    Source: Security Hub CloudWatch.16; NIST 800-53 AU-11 and SC-28.
    """
    days = group.get("retentionInDays")
    if days is not UNKNOWN and not days:
        yield "retentionInDays is missing; give it"
    if missing(group.get("kmsKeyId")):
        yield "kmsKeyId is missing; give the party's key of logs"


@rule("messages-encrypted", "aws:sns/topic:Topic", "aws:sqs/queue:Queue")
def messages(topic: Resource) -> Iterator[str]:
    """Topics and queues are encrypted under the party's key.

    Source: FSBP SQS.1; Security Hub SNS.1.
    """
    if missing(topic.get("kmsMasterKeyId")):
        yield "kmsMasterKeyId is missing; give the party's key"


@rule("images-immutable-and-scanned", "aws:ecr/repository:Repository")
def images(repository: Resource) -> Iterator[str]:
    """An image stays what it was when it was tested, and is scanned and encrypted.

    Source: FSBP ECR.1 and ECR.2; Security Hub ECR.5; CIS Amazon EKS Benchmark 5.1.1.
    """
    if differs(repository.get("imageTagMutability"), "IMMUTABLE"):
        yield "imageTagMutability is not IMMUTABLE; set it"
    if differs(repository.get("imageScanningConfiguration", "scanOnPush"), True):
        yield "imageScanningConfiguration.scanOnPush is not true; set it"
    encryption = repository.get("encryptionConfigurations")
    if missing(encryption):
        yield "encryptionConfigurations is missing; give the party's key"
    for given in items(encryption):
        if differs(get(given, "encryptionType"), "KMS", "KMS_DSSE") or missing(
            get(given, "kmsKey")
        ):
            yield "encryptionConfigurations names no KMS key; give the party's"


@rule(
    "volumes-encrypted",
    "aws:ebs/volume:Volume",
    "aws:ebs/snapshotCopy:SnapshotCopy",
    "aws:efs/fileSystem:FileSystem",
)
def volumes(volume: Resource) -> Iterator[str]:
    """Disks and file systems are encrypted.

    Source: FSBP EC2.3 and EFS.1.
    """
    if differs(volume.get("encrypted"), True):
        yield "encrypted is not true; set it"
