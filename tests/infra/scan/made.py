"""Recordings made by hand: what the scanners should and should not complain of."""

from __future__ import annotations

import json
from typing import Any

from tests.infra.recording import Record, Recording


def recording(*records: Record) -> Recording:
    """As if a program had registered them."""
    return Recording({record.urn: record for record in records})


def record(kind: str, name: str, /, *dependencies: Record, **properties: Any) -> Record:
    """One resource, inside of a component."""
    urn = f"urn:pulumi:dev::fl-silos::fl-silos:infra:Part${kind}::{name}"
    return Record(urn, properties, "", tuple(one.urn for one in dependencies), True)


def document(*statements: dict[str, Any]) -> str:
    """A policy."""
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def stack(good: bool) -> Recording:
    """All that checkov is to judge, in one recording, because each start of it takes seconds."""
    bucket = good_bucket() if good else bad_bucket()
    parts = (bucket, network(good), cluster(good), services(good), workload(good))
    return recording(*(record for part in parts for record in part.resources.values()))


def good_bucket() -> Recording:
    """A bucket with all that belongs to one."""
    key = record("aws:kms/key:Key", "data", enableKeyRotation=True, policy=document())
    bucket = record("aws:s3/bucket:Bucket", "vault")
    named = {"bucket": "vault-0123abc"}
    return recording(
        key,
        bucket,
        record(
            "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
            "vault",
            bucket,
            **named,
            blockPublicAcls=True,
            blockPublicPolicy=True,
            ignorePublicAcls=True,
            restrictPublicBuckets=True,
        ),
        record(
            "aws:s3/bucketVersioning:BucketVersioning",
            "vault",
            bucket,
            **named,
            versioningConfiguration={"status": "Enabled"},
        ),
        record(
            "aws:s3/bucketServerSideEncryptionConfiguration"
            ":BucketServerSideEncryptionConfiguration",
            "vault",
            bucket,
            key,
            **named,
            rules=[
                {
                    "applyServerSideEncryptionByDefault": {
                        "sseAlgorithm": "aws:kms",
                        "kmsMasterKeyId": "arn:aws:kms:eu-central-1:111111111111:key/data",
                    }
                }
            ],
        ),
        record(
            "aws:s3/bucketLogging:BucketLogging", "vault", bucket, **named, targetBucket="other"
        ),
        record(
            "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
            "vault",
            bucket,
            **named,
            rules=[
                {
                    "id": "parts",
                    "status": "Enabled",
                    "abortIncompleteMultipartUpload": {"daysAfterInitiation": 7},
                }
            ],
        ),
    )


def bad_bucket() -> Recording:
    """A bucket alone, a key without rotation, and a block of public access that blocks nothing."""
    return recording(
        record("aws:kms/key:Key", "data", enableKeyRotation=False),
        record("aws:s3/bucket:Bucket", "vault"),
        record(
            "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
            "another",
            bucket="another-0123abc",
            blockPublicAcls=False,
            blockPublicPolicy=True,
        ),
    )


def network(good: bool) -> Recording:
    """A network, and a group of an endpoint: closed, or open and attached to nothing."""
    vpc = record("aws:ec2/vpc:Vpc", "net", cidrBlock="10.0.0.0/16", tags={"Name": "net"})
    of_it = {"vpcId": "net-id"}
    group = record(
        "aws:ec2/securityGroup:SecurityGroup", "endpoints", vpc, **of_it, description="endpoints"
    )
    rule = record(
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        "https",
        group,
        securityGroupId="endpoints-id",
        description="HTTPS from the network" if good else None,
        ipProtocol="tcp",
        fromPort=443 if good else 22,
        toPort=443 if good else 22,
        cidrIpv4="10.0.0.0/16" if good else "0.0.0.0/0",
    )
    if not good:
        return recording(vpc, group, rule)
    return recording(
        vpc,
        group,
        rule,
        record(
            "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
            "net",
            vpc,
            **of_it,
            ingress=[],
            egress=[],
        ),
        record(
            "aws:ec2/flowLog:FlowLog",
            "net",
            vpc,
            **of_it,
            trafficType="ALL",
            logDestination="arn:aws:logs:eu-central-1:111111111111:log-group:flow",
        ),
        # The group stands second, in a list: a plan's own references name only the first.
        record(
            "aws:ec2/vpcEndpoint:VpcEndpoint",
            "sts",
            vpc,
            group,
            **of_it,
            vpcEndpointType="Interface",
            securityGroupIds=["sg-of-somebody-else", "endpoints-id"],
        ),
    )


def cluster(good: bool) -> Recording:
    """A cluster: private, logged and encrypted, or with what EKS does of its own accord."""
    properties: dict[str, Any] = {"vpcConfig": {"subnetIds": ["a-id", "b-id"]}, "version": "1.21"}
    if good:
        properties["vpcConfig"] |= {"endpointPrivateAccess": True, "endpointPublicAccess": False}
        properties |= {
            "version": "1.32",
            "enabledClusterLogTypes": [
                *("api", "audit", "authenticator", "controllerManager", "scheduler")
            ],
            "encryptionConfig": {
                "provider": {"keyArn": "arn:aws:kms:eu-central-1:111111111111:key/data"},
                "resources": ["secrets"],
            },
        }
    return recording(record("aws:eks/cluster:Cluster", "cluster", **properties))


def services(good: bool) -> Recording:
    """What has fewer properties that matter: all of them set, or none."""
    key = "arn:aws:kms:eu-central-1:111111111111:key/other"
    principal = {"AWS": "arn:aws:iam::111111111111:role/one"} if good else "*"

    def allowing(*actions: str, **more: str) -> str:
        return document({"Effect": "Allow", "Principal": principal, "Action": actions, **more})

    def only(**properties: Any) -> dict[str, Any]:
        return properties if good else {}

    return recording(
        record("aws:sns/topic:Topic", "alarms", **only(kmsMasterKeyId=key)),
        record(
            "aws:sns/topicPolicy:TopicPolicy",
            "alarms",
            policy=allowing("sns:Publish").replace("AWS", "Service"),
        ),
        record("aws:ecr/repositoryPolicy:RepositoryPolicy", "images", policy=allowing("ecr:*")),
        record(
            "aws:kms/key:Key",
            "other",
            enableKeyRotation=good,
            policy=allowing("kms:Decrypt", Resource="*"),
        ),
        record(
            "aws:s3/bucketPolicy:BucketPolicy",
            "other",
            policy=allowing("s3:GetObject", Resource="arn:aws:s3:::other/*"),
        ),
        record(
            "aws:iam/role:Role",
            "deployer",
            assumeRolePolicy=allowing("sts:AssumeRole"),
        ),
        record(
            "aws:iam/rolePolicy:RolePolicy",
            "deployer",
            policy=document(
                {
                    "Effect": "Allow",
                    "Action": "s3:GetObject" if good else "*",
                    "Resource": "arn:aws:s3:::other/*" if good else "*",
                }
            ),
        ),
        record(
            "aws:ecr/repository:Repository",
            "images",
            **only(
                imageTagMutability="IMMUTABLE",
                imageScanningConfiguration={"scanOnPush": True},
                encryptionConfigurations=[{"encryptionType": "KMS", "kmsKey": key}],
            ),
        ),
        record(
            "aws:cloudwatch/logGroup:LogGroup", "logs", **only(kmsKeyId=key, retentionInDays=365)
        ),
        record(
            "aws:lb/loadBalancer:LoadBalancer",
            "link",
            loadBalancerType="network",
            internal=True,
            **only(
                enableDeletionProtection=True,
                enableCrossZoneLoadBalancing=True,
                accessLogs={"bucket": "other", "enabled": True},
            ),
        ),
        record("aws:ec2/vpcEndpointService:VpcEndpointService", "link", acceptanceRequired=good),
        record("aws:ec2/subnet:Subnet", "a", mapPublicIpOnLaunch=not good),
        record(
            "aws:ec2/launchTemplate:LaunchTemplate",
            "tunnel",
            **only(metadataOptions={"httpTokens": "required", "httpPutResponseHopLimit": 1}),
        ),
        record(
            "aws:ec2/instance:Instance",
            "tunnel",
            associatePublicIpAddress=not good,
            **only(
                iamInstanceProfile="tunnel",
                monitoring=True,
                ebsOptimized=True,
                metadataOptions={"httpTokens": "required"},
                rootBlockDevice={"encrypted": True},
            ),
        ),
    )


def workload(good: bool) -> Recording:
    """A pod that may do nothing, or everything."""
    container: dict[str, Any] = {"name": "one", "image": "example/one:latest"}
    if not good:
        container["securityContext"] = {"privileged": True}
    else:
        container |= {
            "image": f"example/one@sha256:{'0' * 64}",
            "imagePullPolicy": "Always",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "resources": {one: {"cpu": "1", "memory": "1Gi"} for one in ("requests", "limits")},
        }
    pod: dict[str, Any] = {"containers": [container]}
    if good:
        pod["automountServiceAccountToken"] = False
        pod["securityContext"] = {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    return recording(
        record(
            "kubernetes:core/v1:Pod",
            "one",
            apiVersion="v1",
            kind="Pod",
            metadata={"name": "one", "namespace": "here"},
            spec=pod,
        )
    )


def policies() -> Recording:
    """Policies that are right, and two that are wrong in all ways that parliament sees."""
    trials = "arn:aws:sagemaker:eu-central-1:111111111111:experiment"
    trust = {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"]}
    tls = {"Bool": {"aws:SecureTransport": "false"}}
    return recording(
        record(
            "aws:iam/role:Role",
            "right",
            assumeRolePolicy=document(trust | {"Principal": {"Service": "pods.eks.amazonaws.com"}}),
            inlinePolicies=[
                {
                    "name": "objects",
                    "policy": document(
                        {
                            "Effect": "Allow",
                            "Action": "s3:GetObject",
                            "Resource": "arn:aws:s3:::vault/here/*",
                        },
                        {
                            "Effect": "Allow",
                            "Action": "sagemaker:CreateTrial",
                            "Resource": [f"{trials}/here", f"{trials}-trial/here-*"],
                        },
                    ),
                }
            ],
        ),
        record(
            "aws:s3/bucketPolicy:BucketPolicy",
            "right",
            policy=document(
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": ["arn:aws:s3:::vault", "arn:aws:s3:::vault/*"],
                    "Condition": tls,
                }
            ),
        ),
        record(
            "aws:ecr/repositoryPolicy:RepositoryPolicy",
            "right",
            policy=document(
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": "arn:aws:iam::222222222222:root"},
                    "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                }
            ),
        ),
        record(
            "aws:iam/rolePolicy:RolePolicy",
            "wrong",
            policy=document(
                {"Effect": "Allow", "Action": "s3:GetObjekt", "Resource": "arn:aws:s3:::vault/*"},
                {
                    "Effect": "Allow",
                    "Action": "sagemaker:CreateTrial",
                    "Resource": f"{trials}/here",
                },
                {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"},
                {
                    "Effect": "Allow",
                    "Action": "iam:CreatePolicyVersion",
                    "Resource": "arn:aws:iam::111111111111:policy/mine",
                },
            ),
        ),
        record(
            "aws:kms/keyPolicy:KeyPolicy",
            "wrong",
            policy=document(
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": "somebody"},
                    "Action": "kms:Decript",
                    "Resource": "*",
                }
            ),
        ),
    )
