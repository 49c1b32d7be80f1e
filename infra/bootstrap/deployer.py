"""What the deployer may do: make, change and remove what the party's stack is made of.

What has a name that is known beforehand is named. What AWS gives an ID must be tagged as the
federation's when it is made, and only what is tagged so may be changed. Reading is wider: Describe*
of a service whose resources have no names shows no data, and the provider reads more with time.
"""

from __future__ import annotations

from collections.abc import Mapping

from infra.bootstrap.place import Place, actions
from infra.cluster import CLUSTER_POLICIES, NODE_POLICIES
from infra.policies import Statement, allow
from infra.tunnel import DOCUMENT

LIMIT = 6144
"""Characters that IAM takes in a policy, blanks not counted."""
SERVICES = (
    "ec2.amazonaws.com",
    "eks.amazonaws.com",
    "pods.eks.amazonaws.com",
    "vpc-flow-logs.amazonaws.com",
)
"""Who may be given a role that the deployer has made."""


def policies(at: Place) -> Mapping[str, list[Statement]]:
    """The deployer's policies by concern; a silo's has nothing of what only the aggregator has."""
    found = {
        "network": _network(at),
        "names": _names(at),
        "cluster": _cluster(at),
        "identity": _identity(at),
        "data": _data(at),
        "observability": _observability(at),
    }
    if at.settings.is_aggregator:
        return found | {"link": _endpoint_service(at), "images": _images(at)}
    return found | {"link": _connection(at)}


def _network(at: Place) -> list[Statement]:
    made = """
        elastic-ip instance internet-gateway launch-template natgateway route-table security-group
        subnet vpc vpc-endpoint vpc-flow-log
    """
    creates = """
        AllocateAddress CreateFlowLogs CreateInternetGateway CreateLaunchTemplate CreateNatGateway
        CreateRouteTable CreateSecurityGroup CreateSubnet CreateVpc CreateVpcEndpoint RunInstances
    """
    in_vpc = "CreateFlowLogs CreateRouteTable CreateSecurityGroup CreateSubnet CreateVpcEndpoint"
    changes = """
        AssociateRouteTable AttachInternetGateway CreateLaunchTemplateVersion CreateRoute
        DeleteFlowLogs DeleteInternetGateway DeleteLaunchTemplate DeleteNatGateway DeleteRoute
        DeleteRouteTable DeleteSecurityGroup DeleteSubnet DeleteTags DeleteVpc DeleteVpcEndpoints
        DetachInternetGateway DisassociateAddress DisassociateRouteTable ModifyInstanceAttribute
        ModifyInstanceCreditSpecification ModifyInstanceMetadataOptions ModifyLaunchTemplate
        ModifySubnetAttribute ModifyVpcAttribute ModifyVpcEndpoint ReleaseAddress ReplaceRoute
        ReplaceRouteTableAssociation StartInstances StopInstances TerminateInstances
    """
    rules = """
        AuthorizeSecurityGroupEgress AuthorizeSecurityGroupIngress ModifySecurityGroupRules
        RevokeSecurityGroupEgress RevokeSecurityGroupIngress
    """
    # A tag at another time than with the making would make anything the federation's.
    with_making = [*creates.split(), "CreateVpcEndpointServiceConfiguration", *rules.split()[:2]]
    image = "arn:aws:ssm:*::parameter/aws/service/ami-amazon-linux-latest/*"
    return [
        allow("Look", ["ec2:Describe*", "ec2:GetManagedPrefixListEntries"], ["*"], **at.here()),
        allow("Make", actions("ec2", creates), _ec2(at, made), **at.tagging()),
        allow("InNetwork", actions("ec2", in_vpc), _ec2(at, "vpc"), **at.here()),
        allow(
            "OnNetwork",
            actions("ec2", "CreateNatGateway CreateVpcEndpoint RunInstances"),
            _ec2(at, "elastic-ip route-table security-group subnet"),
            **at.here(),
        ),
        allow(
            "Host",
            ["ec2:RunInstances"],
            [*_ec2(at, "launch-template network-interface volume"), "arn:aws:ec2:*::image/*"],
            **at.here(),
        ),
        allow("HostImage", ["ssm:GetParameters"], [image], **at.here()),
        # AWS attaches the zones of endpoints' and of a private cluster's names for who may do so.
        allow(
            "EndpointNames",
            ["route53:AssociateVPCWithHostedZone"],
            ["arn:aws:route53:::hostedzone/*"],
        ),
        # Those of the cluster's own group and of the network's default group, which EKS and EC2
        # have made and not tagged.
        allow(
            "Rules",
            actions("ec2", rules),
            _ec2(at, "security-group security-group-rule"),
            **at.here(),
        ),
        allow(
            "Change",
            actions("ec2", f"{changes} CreateTags"),
            _ec2(at, f"{made} security-group-rule vpc-endpoint-service"),
            **at.tagged(),
        ),
        allow(
            "Tag",
            ["ec2:CreateTags"],
            _ec2(at, f"{made} security-group-rule vpc-endpoint-service"),
            **at.here(**{"ec2:CreateAction": sorted(with_making)}),
        ),
        allow("TagDefaultGroup", ["ec2:CreateTags"], _ec2(at, "security-group"), **at.here()),
    ]


def _names(at: Place) -> list[Statement]:
    """The filter on names that the network may resolve; and the tunnel, by which one gets in."""
    kinds = "firewall-domain-list firewall-rule-group firewall-rule-group-association"
    filters = """
        AssociateFirewallRuleGroup CreateFirewallDomainList CreateFirewallRule
        CreateFirewallRuleGroup DeleteFirewallDomainList DeleteFirewallRule DeleteFirewallRuleGroup
        DisassociateFirewallRuleGroup GetFirewallDomainList GetFirewallRuleGroup
        GetFirewallRuleGroupAssociation ListFirewallDomains ListFirewallRules ListTagsForResource
        TagResource UntagResource UpdateFirewallDomains UpdateFirewallRule
        UpdateFirewallRuleGroupAssociation
    """
    lists = """
        ListFirewallDomainLists ListFirewallRuleGroupAssociations ListFirewallRuleGroups
    """
    # Without it, who names no document gets a shell on the host.
    named = {"BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}}
    tag = {"StringEquals": {"ssm:resourceTag/fl-silos:federation": _name(at)}}
    return [
        allow(
            "Filter",
            actions("route53resolver", filters),
            [at.arn("route53resolver", f"{kind}/*") for kind in kinds.split()],
            **at.here(),
        ),
        allow("Filters", actions("route53resolver", lists), ["*"], **at.here()),
        allow("Tunnel", ["ssm:StartSession"], _ec2(at, "instance"), Condition={**tag, **named}),
        allow(
            "TunnelOnly",
            ["ssm:StartSession"],
            [f"arn:aws:ssm:*::document/{DOCUMENT}"],
            Condition=named,
        ),
        allow(
            "OwnSessions",
            ["ssm:ResumeSession", "ssm:TerminateSession"],
            [at.arn("ssm", "session/${aws:userid}-*")],
        ),
    ]


def _cluster(at: Place) -> list[Statement]:
    changes = """
        AssociateAccessPolicy AssociateEncryptionConfig CreateAccessEntry CreateAddon
        CreatePodIdentityAssociation DeleteAccessEntry DeleteAddon DeleteCluster
        DeletePodIdentityAssociation DescribeAccessEntry DescribeAddon DescribeCluster
        DescribePodIdentityAssociation DescribeUpdate DisassociateAccessPolicy ListAccessEntries
        ListAddons ListAssociatedAccessPolicies ListPodIdentityAssociations ListTagsForResource
        ListUpdates TagResource UntagResource UpdateAccessEntry UpdateAddon UpdateClusterConfig
        UpdateClusterVersion UpdatePodIdentityAssociation
    """
    kinds = "access-entry addon cluster podidentityassociation"
    return [
        # IAM knows no name of what is only being made.
        allow("Make", ["eks:CreateCluster"], ["*"], **at.tagging()),
        allow(
            "Cluster",
            actions("eks", changes),
            [at.arn("eks", f"{kind}/{at.clusters}") for kind in kinds.split()],
            **at.here(),
        ),
        allow(
            "Versions",
            actions("eks", "DescribeAddonConfiguration DescribeAddonVersions"),
            ["*"],
            **at.here(),
        ),
    ]


def _identity(at: Place) -> list[Statement]:
    """Roles below the boundary, and none of the deployer's own."""
    limited = {"iam:PermissionsBoundary": at.boundary}
    managed = sorted({*CLUSTER_POLICIES, *NODE_POLICIES})
    linked = ["eks.amazonaws.com", "elasticloadbalancing.amazonaws.com"]
    if at.settings.is_aggregator:
        linked += ["inspector2.amazonaws.com", "replication.ecr.amazonaws.com"]
    roles = """
        DeleteRole GetRole GetRolePolicy ListAttachedRolePolicies ListInstanceProfilesForRole
        ListRolePolicies ListRoleTags TagRole UntagRole UpdateAssumeRolePolicy UpdateRole
        UpdateRoleDescription
    """
    permissions = "CreateRole DeleteRolePolicy PutRolePermissionsBoundary PutRolePolicy"
    profiles = """
        AddRoleToInstanceProfile CreateInstanceProfile DeleteInstanceProfile GetInstanceProfile
        ListInstanceProfileTags RemoveRoleFromInstanceProfile TagInstanceProfile
        UntagInstanceProfile
    """
    never = """
        AttachRolePolicy DeleteRole DeleteRolePermissionsBoundary DeleteRolePolicy DetachRolePolicy
        PassRole PutRolePermissionsBoundary PutRolePolicy UpdateAssumeRolePolicy UpdateRole
    """
    return [
        allow("Roles", actions("iam", roles), [at.roles]),
        allow(
            "Permissions",
            actions("iam", permissions),
            [at.roles],
            Condition={"StringEquals": limited},
        ),
        allow(
            "Attach",
            actions("iam", "AttachRolePolicy DetachRolePolicy"),
            [at.roles],
            Condition={
                "StringEquals": limited,
                "ArnEquals": {"iam:PolicyARN": [f"arn:aws:iam::aws:policy/{p}" for p in managed]},
            },
        ),
        allow(
            "Give",
            ["iam:PassRole"],
            [at.roles],
            Condition={"StringEquals": {"iam:PassedToService": [*SERVICES]}},
        ),
        allow(
            "Profiles",
            actions("iam", profiles),
            [at.everywhere("iam", f"instance-profile/fl-silos/{at.names}")],
        ),
        allow(
            "LinkedRoles",
            ["iam:CreateServiceLinkedRole"],
            [at.everywhere("iam", "role/aws-service-role/*")],
            Condition={"StringEquals": {"iam:AWSServiceName": linked}},
        ),
        {
            "Sid": "NotItself",
            "Effect": "Deny",
            "Action": actions("iam", never),
            "Resource": at.deployers,
        },
        {
            "Sid": "NotTheBoundary",
            "Effect": "Deny",
            "Action": actions(
                "iam",
                "CreatePolicyVersion DeletePolicy DeletePolicyVersion SetDefaultPolicyVersion",
            ),
            "Resource": at.everywhere("iam", "policy/fl-silos/*"),
        },
    ]


def _data(at: Place) -> list[Statement]:
    """Buckets and keys; not what lies in them, but for removing it with the bucket."""
    buckets = """
        CreateBucket DeleteBucket DeleteBucketPolicy GetAccelerateConfiguration GetBucketAcl
        GetBucketCORS GetBucketLocation GetBucketLogging GetBucketObjectLockConfiguration
        GetBucketOwnershipControls GetBucketPolicy GetBucketPolicyStatus
        GetBucketPublicAccessBlock GetBucketRequestPayment GetBucketTagging GetBucketVersioning
        GetBucketWebsite GetEncryptionConfiguration GetLifecycleConfiguration
        GetReplicationConfiguration ListBucket ListBucketMultipartUploads ListBucketVersions
        ListTagsForResource PutBucketLogging PutBucketOwnershipControls PutBucketPolicy
        PutBucketPublicAccessBlock PutBucketTagging PutBucketVersioning PutEncryptionConfiguration
        PutLifecycleConfiguration TagResource UntagResource
    """
    keys = """
        CancelKeyDeletion CreateAlias DeleteAlias DescribeKey DisableKeyRotation EnableKey
        EnableKeyRotation GetKeyPolicy GetKeyRotationStatus ListGrants ListResourceTags
        PutKeyPolicy ScheduleKeyDeletion TagResource UntagResource UpdateAlias UpdateKeyDescription
    """
    return [
        allow("Buckets", actions("s3", buckets), [f"arn:aws:s3:::{at.names}"], **at.here()),
        allow(
            "EmptyBuckets",
            actions("s3", "AbortMultipartUpload DeleteObject DeleteObjectVersion"),
            [f"arn:aws:s3:::{at.names}/*"],
            **at.here(),
        ),
        allow("MakeKeys", actions("kms", "CreateKey TagResource"), ["*"], **at.tagging()),
        allow("Keys", actions("kms", keys), [at.arn("kms", "key/*")], **at.tagged()),
        # Of EKS for the cluster's Secrets, and of ECR for images. Not for AWS's resources alone, as
        # KMS calls it: with that condition EKS makes no cluster.
        allow(
            "Grants",
            actions("kms", "CreateGrant RetireGrant"),
            [at.arn("kms", "key/*")],
            **at.tagged(),
        ),
        allow(
            "Aliases",
            actions("kms", "CreateAlias DeleteAlias UpdateAlias"),
            [at.arn("kms", f"alias/{at.names}")],
            **at.here(),
        ),
        allow("AllAliases", ["kms:ListAliases"], ["*"], **at.here()),
    ]


def _observability(at: Place) -> list[Statement]:
    federation, party = at.settings.federation, at.settings.party
    groups = (
        f"/fl-silos/{federation}/{party}/*",
        f"/aws/eks/{at.clusters}",
        f"/aws/containerinsights/{at.clusters}",
    )
    logs = """
        AssociateKmsKey CreateLogGroup DeleteLogGroup DeleteMetricFilter DeleteRetentionPolicy
        DescribeMetricFilters DisassociateKmsKey ListTagsForResource ListTagsLogGroup
        PutMetricFilter PutRetentionPolicy TagLogGroup TagResource UntagLogGroup UntagResource
    """
    alarms = """
        DeleteAlarms DescribeAlarms ListTagsForResource PutMetricAlarm TagResource UntagResource
    """
    topics = """
        CreateTopic DeleteTopic GetTopicAttributes ListSubscriptionsByTopic ListTagsForResource
        SetTopicAttributes Subscribe TagResource UntagResource
    """
    subscriptions = "GetSubscriptionAttributes SetSubscriptionAttributes Unsubscribe"
    budgets = "ListTagsForResource ModifyBudget TagResource UntagResource ViewBudget"
    return [
        allow(
            "LogGroups",
            actions("logs", logs),
            [at.arn("logs", f"log-group:{group}") for group in groups],
            **at.here(),
        ),
        allow("Lists", ["logs:DescribeLogGroups"], ["*"], **at.here()),
        allow(
            "Alarms",
            actions("cloudwatch", alarms),
            [at.arn("cloudwatch", f"alarm:{at.names}")],
            **at.here(),
        ),
        allow(
            "Dashboards",
            actions("cloudwatch", "DeleteDashboards GetDashboard PutDashboard"),
            [at.everywhere("cloudwatch", f"dashboard/{at.clusters}")],
        ),
        allow("Topics", actions("sns", topics), [at.arn("sns", at.names)], **at.here()),
        allow("Subscriptions", actions("sns", subscriptions), ["*"], **at.here()),
        allow(
            "Budgets",
            actions("budgets", budgets),
            [at.everywhere("budgets", f"budget/{at.names}")],
        ),
    ]


def _endpoint_service(at: Place) -> list[Statement]:
    """The aggregator's end: a load balancer, and the service that silos connect to."""
    made = [
        at.arn("elasticloadbalancing", kind)
        for kind in ("listener/net/*", "loadbalancer/net/*", "targetgroup/*")
    ]
    changes = """
        AddTags DeleteListener DeleteLoadBalancer DeleteTargetGroup ModifyListener
        ModifyListenerAttributes ModifyLoadBalancerAttributes ModifyTargetGroup
        ModifyTargetGroupAttributes RemoveTags SetIpAddressType SetSecurityGroups SetSubnets
    """
    creates = "CreateListener CreateLoadBalancer CreateTargetGroup"
    serves = """
        DeleteVpcEndpointServiceConfigurations ModifyVpcEndpointServiceConfiguration
        ModifyVpcEndpointServicePermissions RejectVpcEndpointConnections
    """
    service = _ec2(at, "vpc-endpoint-service")
    return [
        allow("Look", ["elasticloadbalancing:Describe*"], ["*"], **at.here()),
        allow("Make", actions("elasticloadbalancing", creates), made, **at.tagging()),
        allow(
            "Tag",
            ["elasticloadbalancing:AddTags"],
            made,
            **at.here(**{"elasticloadbalancing:CreateAction": creates.split()}),
        ),
        allow("Change", actions("elasticloadbalancing", changes), made, **at.tagged()),
        allow("Offer", ["ec2:CreateVpcEndpointServiceConfiguration"], service, **at.tagging()),
        allow("Serve", actions("ec2", serves), service, **at.tagged()),
        allow("OtherRegions", ["vpce:AllowMultiRegion"], ["*"], **at.here()),
    ]


def _connection(at: Place) -> list[Statement]:
    """A silo's end: the coordinator's name, for the party's network alone."""
    name = f"{_name(at)}.internal"
    zones = """
        ChangeTagsForResource DeleteHostedZone DisassociateVPCFromHostedZone GetHostedZone
        ListResourceRecordSets ListTagsForResource UpdateHostedZoneComment
    """
    return [
        allow("MakeZone", ["route53:CreateHostedZone"], ["*"]),
        allow("Zone", actions("route53", zones), ["arn:aws:route53:::hostedzone/*"]),
        # Whatever other zones the account has, names in them are not changed.
        allow(
            "Names",
            ["route53:ChangeResourceRecordSets"],
            ["arn:aws:route53:::hostedzone/*"],
            Condition={
                "ForAllValues:StringLike": {
                    "route53:ChangeResourceRecordSetsNormalizedRecordNames": [name, f"*.{name}"]
                }
            },
        ),
        allow("Progress", ["route53:GetChange"], ["arn:aws:route53:::change/*"]),
        allow("OtherRegions", ["vpce:AllowMultiRegion"], ["*"], **at.here()),
    ]


def _images(at: Place) -> list[Statement]:
    repository = """
        CreateRepository DeleteLifecyclePolicy DeleteRepository DeleteRepositoryPolicy
        DescribeRepositories GetLifecyclePolicy GetRepositoryPolicy ListTagsForResource
        PutImageScanningConfiguration PutImageTagMutability PutLifecyclePolicy
        SetRepositoryPolicy TagResource UntagResource
    """
    registry = """
        BatchGetRepositoryScanningConfiguration DescribeRegistry
        GetRegistryScanningConfiguration PutRegistryScanningConfiguration
        PutReplicationConfiguration
    """
    push = """
        BatchCheckLayerAvailability BatchDeleteImage BatchGetImage CompleteLayerUpload
        DescribeImages GetDownloadUrlForLayer InitiateLayerUpload ListImages PutImage
        UploadLayerPart
    """
    images = [at.arn("ecr", f"repository/{_name(at)}/fl-silos")]
    return [
        allow("Repository", actions("ecr", repository), images, **at.here()),
        allow("Images", actions("ecr", push), images, **at.here()),
        allow("Login", ["ecr:GetAuthorizationToken"], ["*"], **at.here()),
        allow("Registry", actions("ecr", registry), ["*"], **at.here()),
        # ECR's enhanced scanning is Inspector's.
        allow(
            "Scan",
            actions("inspector2", "Enable ListAccountPermissions"),
            ["*"],
            **at.here(),
        ),
    ]


def _ec2(at: Place, kinds: str) -> list[str]:
    return [at.arn("ec2", f"{kind}/*") for kind in kinds.split()]


def _name(at: Place) -> str:
    return at.settings.federation
