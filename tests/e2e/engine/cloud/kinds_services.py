"""IAM, S3, KMS, CloudWatch, SNS, ECR, Route 53 and others. Part of a test double."""

from __future__ import annotations

from .kinds import KINDS, Kind, Making
from .store import Properties

IAM = "arn:aws:iam::{account}:"


def _path(making: Making) -> Properties:
    """IAM's ARNs: a path, which is ``/`` unless given, stands before the name."""
    return {"path": making.inputs.get("path", "/")}


def _record(making: Making) -> Properties:
    return {"fqdn": making.inputs["name"].rstrip(".")}


def _policy_ids(making: Making) -> Properties:
    return _path(making) | {"policyId": f"ANPA{making.words['upper'][:17]}"}


KINDS |= {
    "aws:iam/role:Role": Kind(
        id="{name}",
        arn=IAM + "role{path}{name}",
        name="name",
        longest=64,
        replaces=("path",),
        outputs={"uniqueId": "AROA{upper}", "createDate": "2026-01-01T00:00:00Z"},
        compute=_path,
    ),
    "aws:iam/policy:Policy": Kind(
        id="{arn}",
        arn=IAM + "policy{path}{name}",
        name="name",
        longest=128,
        replaces=("path", "description"),
        compute=_policy_ids,
    ),
    "aws:iam/instanceProfile:InstanceProfile": Kind(
        id="{name}",
        arn=IAM + "instance-profile{path}{name}",
        name="name",
        longest=128,
        replaces=("path",),
        outputs={"uniqueId": "AIPA{upper}"},
        compute=_path,
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Kind(
        id="{role}/{policyArn}", replaces=("role", "policyArn")
    ),
    "aws:iam/rolePolicy:RolePolicy": Kind(
        id="{role}:{name}", name="name", longest=128, replaces=("role",)
    ),
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider": Kind(
        id="{arn}", arn=IAM + "oidc-provider/{hex16}", replaces=("url",)
    ),
    "aws:kms/key:Key": Kind(
        id="{uuid}",
        arn="arn:aws:kms:{region}:{account}:key/{uuid}",
        replaces=("customerMasterKeySpec", "keyUsage", "multiRegion"),
        outputs={"keyId": "{uuid}"},
    ),
    "aws:kms/alias:Alias": Kind(
        id="{name}",
        arn="arn:aws:kms:{region}:{account}:{name}",
        name="name",
        prefix="alias/",
        longest=256,
    ),
    "aws:kms/grant:Grant": Kind(id="{keyId}:{hex16}", replaces=("keyId", "granteePrincipal")),
    "aws:s3/bucket:Bucket": Kind(
        id="{bucket}",
        arn="arn:aws:s3:::{bucket}",
        name="bucket",
        longest=63,
        replaces=("bucketPrefix", "objectLockEnabled"),
        outputs={
            "bucketDomainName": "{bucket}.s3.amazonaws.com",
            "bucketRegionalDomainName": "{bucket}.s3.{region}.amazonaws.com",
            "bucketRegion": "{region}",
            "hostedZoneId": "Z21DNDUVLTQW6Q",
        },
    ),
    "aws:cloudwatch/logGroup:LogGroup": Kind(
        id="{name}",
        arn="arn:aws:logs:{region}:{account}:log-group:{name}",
        name="name",
        longest=512,
        replaces=("logGroupClass",),
    ),
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": Kind(
        id="{name}", name="name", longest=512, replaces=("logGroupName",)
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": Kind(
        id="{name}",
        arn="arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
        name="name",
        longest=255,
    ),
    "aws:cloudwatch/dashboard:Dashboard": Kind(
        id="{dashboardName}",
        name="dashboardName",
        outputs={"dashboardArn": "arn:aws:cloudwatch::{account}:dashboard/{dashboardName}"},
    ),
    "aws:cloudwatch/logResourcePolicy:LogResourcePolicy": Kind(
        id="{policyName}", replaces=("policyName",)
    ),
    "aws:sns/topic:Topic": Kind(
        id="{arn}",
        arn="arn:aws:sns:{region}:{account}:{name}",
        name="name",
        longest=256,
        replaces=("fifoTopic",),
        outputs={"owner": "{account}", "beginningArchiveTime": ""},
    ),
    "aws:sns/topicPolicy:TopicPolicy": Kind(id="{arn}", replaces=("arn",)),
    "aws:sns/topicSubscription:TopicSubscription": Kind(
        id="{arn}",
        arn="{topic}:{uuid}",
        replaces=("topic", "protocol", "endpoint"),
        outputs={"ownerId": "{account}", "pendingConfirmation": True},
    ),
    "aws:ecr/repository:Repository": Kind(
        id="{name}",
        arn="arn:aws:ecr:{region}:{account}:repository/{name}",
        name="name",
        longest=256,
        replaces=("encryptionConfigurations",),
        outputs={
            "registryId": "{account}",
            "repositoryUrl": "{account}.dkr.ecr.{region}.amazonaws.com/{name}",
        },
    ),
    "aws:ecr/repositoryPolicy:RepositoryPolicy": Kind(
        id="{repository}", replaces=("repository",), outputs={"registryId": "{account}"}
    ),
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": Kind(
        id="{repository}", replaces=("repository",), outputs={"registryId": "{account}"}
    ),
    # One a registry: making a second one changes the first, which AWS lets happen.
    "aws:ecr/registryScanningConfiguration:RegistryScanningConfiguration": Kind(
        id="{account}", outputs={"registryId": "{account}"}
    ),
    "aws:ecr/replicationConfiguration:ReplicationConfiguration": Kind(
        id="{account}", outputs={"registryId": "{account}"}
    ),
    "aws:ecr/registryPolicy:RegistryPolicy": Kind(
        id="{account}", outputs={"registryId": "{account}"}
    ),
    "aws:route53/zone:Zone": Kind(
        id="Z{upper}",
        arn="arn:aws:route53:::hostedzone/Z{upper}",
        replaces=("name", "delegationSetId"),
        outputs={"zoneId": "Z{upper}", "nameServers": ["ns-1.awsdns-1.com"]},
    ),
    "aws:route53/record:Record": Kind(
        id="{zoneId}_{name}_{type}", replaces=("zoneId", "name", "type"), compute=_record
    ),
    "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList": Kind(
        id="rslvr-fdl-{hex}",
        arn="arn:aws:route53resolver:{region}:{account}:firewall-domain-list/{id}",
        name="name",
        longest=64,
    ),
    "aws:route53/resolverFirewallRuleGroup:ResolverFirewallRuleGroup": Kind(
        id="rslvr-frg-{hex}",
        arn="arn:aws:route53resolver:{region}:{account}:firewall-rule-group/{id}",
        name="name",
        longest=64,
        outputs={"ownerId": "{account}", "shareStatus": "NOT_SHARED"},
    ),
    "aws:route53/resolverFirewallRule:ResolverFirewallRule": Kind(
        id="{firewallRuleGroupId}:{firewallDomainListId}",
        name="name",
        longest=64,
        replaces=("firewallRuleGroupId", "firewallDomainListId"),
    ),
    "aws:route53/resolverFirewallRuleGroupAssociation:ResolverFirewallRuleGroupAssociation": Kind(
        id="rslvr-frgassoc-{hex}",
        arn="arn:aws:route53resolver:{region}:{account}:firewall-rule-group-association/{id}",
        name="name",
        longest=64,
        replaces=("firewallRuleGroupId", "vpcId"),
    ),
    "aws:route53/resolverFirewallConfig:ResolverFirewallConfig": Kind(
        id="rslvr-fc-{hex}", replaces=("resourceId",), outputs={"ownerId": "{account}"}
    ),
    "aws:route53/resolverQueryLogConfig:ResolverQueryLogConfig": Kind(
        id="rqlc-{hex}",
        arn="arn:aws:route53resolver:{region}:{account}:resolver-query-log-config/{id}",
        name="name",
        longest=64,
        replaces=("destinationArn",),
    ),
    "aws:route53/resolverQueryLogConfigAssociation:ResolverQueryLogConfigAssociation": Kind(
        id="rqlca-{hex}", replaces=("resolverQueryLogConfigId", "resourceId")
    ),
    "aws:budgets/budget:Budget": Kind(
        id="{account}:{name}",
        arn="arn:aws:budgets::{account}:budget/{name}",
        name="name",
        longest=100,
        outputs={"accountId": "{account}"},
    ),
    "aws:guardduty/detector:Detector": Kind(
        id="{hex16}{hex16}",
        arn="arn:aws:guardduty:{region}:{account}:detector/{id}",
        outputs={"accountId": "{account}"},
    ),
    "aws:sagemaker/space:Space": Kind(
        id="{arn}", arn="arn:aws:sagemaker:{region}:{account}:space/{domainId}/{spaceName}"
    ),
}
KINDS["aws:s3/bucketV2:BucketV2"] = KINDS["aws:s3/bucket:Bucket"]
