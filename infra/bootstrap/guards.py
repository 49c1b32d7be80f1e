"""What watches over an account and closes its doors, whatever is made in it later."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

AGENTS = ("EKS_ADDON_MANAGEMENT", "ECS_FARGATE_AGENT_MANAGEMENT", "EC2_AGENT_MANAGEMENT")


def defaults(opts: pulumi.ResourceOptions) -> None:
    """No public buckets, no disk in plain text, no instance whose credentials a pod can ask for."""
    aws.s3.AccountPublicAccessBlock(
        "no-public-buckets",
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=opts,
    )
    aws.ebs.EncryptionByDefault("encrypted-disks", enabled=True, opts=opts)
    aws.ec2.InstanceMetadataDefaults(
        "instance-metadata",
        http_endpoint="enabled",
        http_tokens="required",
        http_put_response_hop_limit=1,
        opts=opts,
    )


def guardduty(opts: pulumi.ResourceOptions) -> None:
    """Findings from the clusters' audit logs, and from their nodes where an agent runs.

    GuardDuty does not put its agent in by itself: it would make an endpoint in the network that no
    stack knows of, and the network could then not be removed.
    """
    detector = aws.guardduty.Detector(
        "guardduty", enable=True, finding_publishing_frequency="FIFTEEN_MINUTES", opts=opts
    )
    aws.guardduty.DetectorFeature(
        "guardduty-audit-logs",
        detector_id=detector.id,
        name="EKS_AUDIT_LOGS",
        status="ENABLED",
        opts=opts,
    )
    aws.guardduty.DetectorFeature(
        "guardduty-runtime",
        detector_id=detector.id,
        name="RUNTIME_MONITORING",
        status="ENABLED",
        additional_configurations=[{"name": name, "status": "DISABLED"} for name in AGENTS],
        opts=opts,
    )
