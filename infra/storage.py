"""Buckets: a silo's vault, the aggregator's artifacts, and who reached them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_aws as aws

from fl_core.names import cut
from fl_core.own_data import SCHEME
from infra.accounts import Account
from infra.keys import Key
from infra.policies import Statement, document

if TYPE_CHECKING:
    from pulumi_aws.s3 import (
        BucketLifecycleConfigurationRuleExpirationArgsDict as Expiration,
    )

ACCESS_LOG_DAYS = 365
_ABANDONED_DAYS = 7
# S3 takes 63 characters, of which Pulumi's suffix has 8.
_LONGEST = 55
_SSE, _SSE_KEY, _SSE_CUSTOMER = (
    f"s3:x-amz-server-side-encryption{part}"
    for part in ("", "-aws-kms-key-id", "-customer-algorithm")
)


def location(data: str) -> tuple[str, str]:
    """The bucket's ARN, and the prefix without slashes around it, of ``s3://BUCKET/PREFIX``."""
    bucket, _, prefix = data.removeprefix(SCHEME).partition("/")
    return f"arn:aws:s3:::{bucket}", prefix.strip("/")


class _Private(pulumi.ComponentResource):
    """A bucket that nobody outside of its account reaches, and nobody without TLS."""

    def __init__(
        self, kind: str, what: str, account: Account, protect: bool, opts: pulumi.ResourceOptions
    ) -> None:
        self._bucket = cut(account.named(what), _LONGEST)
        self._account = account
        super().__init__(f"fl-silos:infra:{kind}", account.named(what), None, opts)
        bucket = aws.s3.Bucket(
            self._bucket,
            force_destroy=not protect,
            opts=account.child(self, protect=protect or None),
        )
        self.name = bucket.bucket
        self.arn = bucket.arn
        self._block = aws.s3.BucketPublicAccessBlock(
            self._bucket,
            bucket=self.name,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=account.child(self),
        )
        # S3 refuses changes of a bucket's access while another one is under way.
        self._ownership = aws.s3.BucketOwnershipControls(
            self._bucket,
            bucket=self.name,
            rule={"object_ownership": "BucketOwnerEnforced"},
            opts=account.child(self, depends_on=[self._block]),
        )
        self._versioning = aws.s3.BucketVersioning(
            self._bucket,
            bucket=self.name,
            versioning_configuration={"status": "Enabled"},
            opts=account.child(self),
        )

    def _encrypted(self, key: pulumi.Input[str] | None) -> None:
        """What is put without saying how is encrypted with the key; without one, with S3's own."""
        aws.s3.BucketServerSideEncryptionConfiguration(
            self._bucket,
            bucket=self.name,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "AES256" if key is None else "aws:kms",
                        "kms_master_key_id": key,
                    },
                    "blocked_encryption_types": ["SSE-C"],
                    # One call of KMS for many objects.
                    "bucket_key_enabled": None if key is None else True,
                }
            ],
            opts=self._account.child(self),
        )

    def _expiring(self, noncurrent_days: int, expiration: Expiration) -> None:
        aws.s3.BucketLifecycleConfiguration(
            self._bucket,
            bucket=self.name,
            rules=[
                {
                    "id": "expire",
                    "status": "Enabled",
                    "filter": {},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": _ABANDONED_DAYS},
                    "noncurrent_version_expiration": {"noncurrent_days": noncurrent_days},
                    "expiration": expiration,
                }
            ],
            opts=self._account.child(self, depends_on=[self._versioning]),
        )

    def _policy(self, *statements: Statement) -> aws.s3.BucketPolicy:
        return aws.s3.BucketPolicy(
            self._bucket,
            bucket=self.name,
            policy=document(*statements),
            opts=self._account.child(self, depends_on=[self._block, self._ownership]),
        )

    def _deny(self, sid: str, condition: dict[str, Any], action: str = "s3:*") -> Statement:
        objects = pulumi.Output.concat(self.arn, "/*")
        return {
            "Sid": sid,
            "Effect": "Deny",
            "Principal": "*",
            "Action": action,
            "Resource": objects if action == "s3:PutObject" else [self.arn, objects],
            "Condition": condition,
        }

    def _without_tls(self) -> list[Statement]:
        return [
            self._deny("NotWithoutTls", {"Bool": {"aws:SecureTransport": "false"}}),
            self._deny("NotByOldTls", {"NumericLessThan": {"s3:TlsVersion": "1.2"}}),
        ]


class AccessLogs(_Private):
    """Where S3 writes down who reached the party's buckets; one a party.

    It has no log of its own, which would never end.
    """

    def __init__(
        self,
        account: Account,
        opts: pulumi.ResourceOptions,
        *,
        protect: bool,
        days: int = ACCESS_LOG_DAYS,
    ) -> None:
        super().__init__("AccessLogs", "access-logs", account, protect, opts)
        self._encrypted(None)  # S3 delivers to no bucket with a key of one's own
        self._expiring(days, {"days": days})
        self.policy = self._policy(
            {
                "Sid": "LogDelivery",
                "Effect": "Allow",
                "Principal": {"Service": "logging.s3.amazonaws.com"},
                "Action": "s3:PutObject",
                "Resource": pulumi.Output.concat(self.arn, "/*"),
                "Condition": {"StringEquals": {"aws:SourceAccount": account.id}},
            },
            *self._without_tls(),
            self._deny(
                "NotByOthers",
                {
                    "StringNotEquals": {"aws:PrincipalAccount": account.id},
                    # Log delivery is of no account. If it exists: nor is who does not say a name.
                    "BoolIfExists": {"aws:PrincipalIsAWSService": "false"},
                },
            ),
        )
        self.register_outputs({})


class Bucket(_Private):
    """A bucket under a key of the party's, with versions and a log of who reached it.

    Whoever in the account may put something need not name the key, and may not name another.
    """

    def __init__(
        self,
        what: str,
        account: Account,
        key: Key,
        access_logs: AccessLogs,
        opts: pulumi.ResourceOptions,
        *,
        protect: bool,
        expire_noncurrent_days: int = 90,
    ) -> None:
        super().__init__("Bucket", what, account, protect, opts)
        self._encrypted(key.arn)
        self._expiring(
            expire_noncurrent_days,
            # What is left of an object whose versions have all expired.
            {"expired_object_delete_marker": True},
        )
        self._policy(
            *self._without_tls(),
            self._deny("NotByOthers", {"StringNotEquals": {"aws:PrincipalAccount": account.id}}),
            *self._otherwise_encrypted(key),
        )
        aws.s3.BucketLogging(
            self._bucket,
            bucket=self.name,
            target_bucket=access_logs.name,
            target_prefix=f"{what}/",
            opts=account.child(self, depends_on=[access_logs.policy]),
        )
        self.register_outputs({})

    def _otherwise_encrypted(self, key: Key) -> list[Statement]:
        """Against puts that name another encryption than the bucket's; who names none gets it.

        A condition for what must not differ is fulfilled as well by what is not there: hence Null.
        """
        given = {_SSE: "false"}
        conditions = {
            "NotByOtherMeans": {"StringNotEquals": {_SSE: "aws:kms"}, "Null": given},
            # Here that is meant: KMS without a key would be the key that S3 has in every account.
            "NotByOtherKeys": {"StringNotEquals": {_SSE_KEY: key.arn}, "Null": given},
            "NotByKeyAlone": {
                "StringNotEquals": {_SSE_KEY: key.arn},
                "Null": {_SSE_KEY: "false"},
            },
            "NotByKeysOfTheirOwn": {"Null": {_SSE_CUSTOMER: "false"}},
        }
        return [self._deny(sid, condition, "s3:PutObject") for sid, condition in conditions.items()]
