"""What the AWS provider calls to make, read, change, tag and remove each type of resource.

From the source of Terraform's AWS provider, from which Pulumi's is made, and from what AWS's
documentation says a call needs besides. A type that is not here has no permission yet: add what it
needs here and to infra/bootstrap/deployer.py.
"""

from __future__ import annotations

from collections.abc import Mapping

_TAGS = "ec2:CreateTags ec2:DeleteTags"
_RULES = """
    ec2:AuthorizeSecurityGroupEgress ec2:AuthorizeSecurityGroupIngress
    ec2:DescribeSecurityGroupRules ec2:ModifySecurityGroupRules ec2:RevokeSecurityGroupEgress
    ec2:RevokeSecurityGroupIngress
"""
_S3_READS = """
    s3:GetAccelerateConfiguration s3:GetBucketAcl s3:GetBucketCORS s3:GetBucketLocation
    s3:GetBucketLogging s3:GetBucketObjectLockConfiguration s3:GetBucketPolicy
    s3:GetBucketRequestPayment s3:GetBucketTagging s3:GetBucketVersioning s3:GetBucketWebsite
    s3:GetEncryptionConfiguration s3:GetLifecycleConfiguration s3:GetReplicationConfiguration
    s3:ListBucket s3:ListTagsForResource
"""
_BALANCER = "elasticloadbalancing"
# By type, without the module's path. Those of the components of pulumi-eks are its children's.
NEEDS: Mapping[str, str] = {
    "budgets:Budget": """
        budgets:ListTagsForResource budgets:ModifyBudget budgets:TagResource budgets:UntagResource
        budgets:ViewBudget
    """,
    "cloudwatch:Dashboard": """
        cloudwatch:DeleteDashboards cloudwatch:GetDashboard cloudwatch:PutDashboard
    """,
    "cloudwatch:LogGroup": """
        logs:AssociateKmsKey logs:CreateLogGroup logs:DeleteLogGroup logs:DescribeLogGroups
        logs:DisassociateKmsKey logs:ListTagsForResource logs:PutRetentionPolicy logs:TagResource
        logs:UntagResource
    """,
    "cloudwatch:LogMetricFilter": """
        logs:DeleteMetricFilter logs:DescribeMetricFilters logs:PutMetricFilter
    """,
    "cloudwatch:MetricAlarm": """
        cloudwatch:DeleteAlarms cloudwatch:DescribeAlarms cloudwatch:ListTagsForResource
        cloudwatch:PutMetricAlarm cloudwatch:TagResource cloudwatch:UntagResource
    """,
    "ec2:DefaultSecurityGroup": f"ec2:DescribeSecurityGroups {_RULES} {_TAGS}",
    "ec2:Eip": f"""
        ec2:AllocateAddress ec2:DescribeAddresses ec2:DescribeAddressesAttribute
        ec2:DisassociateAddress ec2:ReleaseAddress {_TAGS}
    """,
    "ec2:FlowLog": f"""
        ec2:CreateFlowLogs ec2:DeleteFlowLogs ec2:DescribeFlowLogs iam:PassRole {_TAGS}
    """,
    "ec2:Instance": f"""
        ec2:DescribeImages ec2:DescribeInstanceAttribute ec2:DescribeInstanceCreditSpecifications
        ec2:DescribeInstanceTypes ec2:DescribeInstances ec2:DescribeLaunchTemplateVersions
        ec2:DescribeLaunchTemplates ec2:DescribeTags ec2:DescribeVolumes
        ec2:ModifyInstanceAttribute ec2:ModifyInstanceMetadataOptions ec2:RunInstances
        ec2:StartInstances ec2:StopInstances ec2:TerminateInstances iam:GetInstanceProfile
        iam:PassRole ssm:GetParameters {_TAGS}
    """,
    "ec2:InternetGateway": f"""
        ec2:AttachInternetGateway ec2:CreateInternetGateway ec2:DeleteInternetGateway
        ec2:DescribeInternetGateways ec2:DetachInternetGateway {_TAGS}
    """,
    "ec2:LaunchTemplate": f"""
        ec2:CreateLaunchTemplate ec2:CreateLaunchTemplateVersion ec2:DeleteLaunchTemplate
        ec2:DescribeLaunchTemplateVersions ec2:DescribeLaunchTemplates ec2:ModifyLaunchTemplate
        {_TAGS}
    """,
    "ec2:NatGateway": f"""
        ec2:CreateNatGateway ec2:DeleteNatGateway ec2:DescribeNatGateways {_TAGS}
    """,
    "ec2:Route": """
        ec2:CreateRoute ec2:DeleteRoute ec2:DescribeRouteTables ec2:ReplaceRoute
    """,
    "ec2:RouteTable": f"""
        ec2:CreateRouteTable ec2:DeleteRouteTable ec2:DescribeRouteTables
        ec2:DisassociateRouteTable {_TAGS}
    """,
    "ec2:RouteTableAssociation": """
        ec2:AssociateRouteTable ec2:DescribeRouteTables ec2:DisassociateRouteTable
        ec2:ReplaceRouteTableAssociation
    """,
    "ec2:SecurityGroup": f"""
        ec2:CreateSecurityGroup ec2:DeleteSecurityGroup ec2:DescribeNetworkInterfaces
        ec2:DescribeSecurityGroups {_RULES} {_TAGS}
    """,
    "ec2:Subnet": f"""
        ec2:CreateSubnet ec2:DeleteSubnet ec2:DescribeNetworkInterfaces ec2:DescribeSubnets
        ec2:ModifySubnetAttribute {_TAGS}
    """,
    "ec2:Vpc": f"""
        ec2:CreateVpc ec2:DeleteVpc ec2:DescribeNetworkAcls ec2:DescribeRouteTables
        ec2:DescribeSecurityGroups ec2:DescribeVpcAttribute ec2:DescribeVpcs
        ec2:ModifyVpcAttribute {_TAGS}
    """,
    "ec2:VpcEndpoint": f"""
        ec2:CreateVpcEndpoint ec2:DeleteVpcEndpoints ec2:DescribeNetworkInterfaces
        ec2:DescribePrefixLists ec2:DescribeVpcEndpoints ec2:ModifyVpcEndpoint
        route53:AssociateVPCWithHostedZone {_TAGS}
    """,
    "ec2:VpcEndpointService": f"""
        ec2:CreateVpcEndpointServiceConfiguration ec2:DeleteVpcEndpointServiceConfigurations
        ec2:DescribeVpcEndpointConnections ec2:DescribeVpcEndpointServiceConfigurations
        ec2:DescribeVpcEndpointServicePermissions ec2:ModifyVpcEndpointServiceConfiguration
        ec2:ModifyVpcEndpointServicePermissions ec2:RejectVpcEndpointConnections
        vpce:AllowMultiRegion {_TAGS}
    """,
    "ec2:VpcEndpointServiceAllowedPrinciple": """
        ec2:DescribeVpcEndpointServicePermissions ec2:ModifyVpcEndpointServicePermissions
    """,
    "ecr:LifecyclePolicy": """
        ecr:DeleteLifecyclePolicy ecr:GetLifecyclePolicy ecr:PutLifecyclePolicy
    """,
    "ecr:RegistryScanningConfiguration": """
        ecr:GetRegistryScanningConfiguration ecr:PutRegistryScanningConfiguration
        inspector2:Enable inspector2:ListAccountPermissions iam:CreateServiceLinkedRole
    """,
    "ecr:ReplicationConfiguration": """
        ecr:DescribeRegistry ecr:PutReplicationConfiguration iam:CreateServiceLinkedRole
    """,
    "ecr:Repository": """
        ecr:CreateRepository ecr:DeleteRepository ecr:DescribeRepositories ecr:ListTagsForResource
        ecr:PutImageScanningConfiguration ecr:PutImageTagMutability ecr:TagResource
        ecr:UntagResource kms:CreateGrant kms:DescribeKey kms:RetireGrant
    """,
    "ecr:RepositoryPolicy": """
        ecr:DeleteRepositoryPolicy ecr:GetRepositoryPolicy ecr:SetRepositoryPolicy
    """,
    "eks:Addon": """
        eks:CreateAddon eks:DeleteAddon eks:DescribeAddon eks:DescribeAddonVersions
        eks:TagResource eks:UntagResource eks:UpdateAddon
    """,
    "eks:Cluster": """
        eks:AssociateAccessPolicy eks:AssociateEncryptionConfig eks:CreateAccessEntry
        eks:CreateCluster eks:DeleteAccessEntry eks:DeleteCluster eks:DescribeAccessEntry
        eks:DescribeCluster eks:DescribeUpdate eks:DisassociateAccessPolicy
        eks:ListAssociatedAccessPolicies eks:TagResource eks:UntagResource eks:UpdateAccessEntry
        eks:UpdateClusterConfig eks:UpdateClusterVersion
        ec2:DescribeSubnets iam:CreateServiceLinkedRole iam:GetRole iam:PassRole kms:CreateGrant
        kms:DescribeKey route53:AssociateVPCWithHostedZone
    """,
    "eks:PodIdentityAssociation": """
        eks:CreatePodIdentityAssociation eks:DeletePodIdentityAssociation
        eks:DescribePodIdentityAssociation eks:TagResource eks:UntagResource
        eks:UpdatePodIdentityAssociation iam:GetRole iam:PassRole
    """,
    "iam:InstanceProfile": """
        iam:AddRoleToInstanceProfile iam:CreateInstanceProfile iam:DeleteInstanceProfile
        iam:GetInstanceProfile iam:GetRole iam:PassRole iam:RemoveRoleFromInstanceProfile
        iam:TagInstanceProfile iam:UntagInstanceProfile
    """,
    "iam:Role": """
        iam:CreateRole iam:DeleteRole iam:GetRole iam:ListAttachedRolePolicies
        iam:ListInstanceProfilesForRole iam:ListRolePolicies iam:PutRolePermissionsBoundary
        iam:TagRole iam:UntagRole iam:UpdateAssumeRolePolicy iam:UpdateRole
        iam:UpdateRoleDescription
    """,
    "iam:RolePolicy": "iam:DeleteRolePolicy iam:GetRolePolicy iam:PutRolePolicy",
    "iam:RolePolicyAttachment": """
        iam:AttachRolePolicy iam:DetachRolePolicy iam:ListAttachedRolePolicies
    """,
    "kms:Alias": "kms:CreateAlias kms:DeleteAlias kms:ListAliases kms:UpdateAlias",
    "kms:Key": """
        kms:CreateKey kms:DescribeKey kms:DisableKeyRotation kms:EnableKeyRotation kms:GetKeyPolicy
        kms:GetKeyRotationStatus kms:ListResourceTags kms:PutKeyPolicy kms:ScheduleKeyDeletion
        kms:TagResource kms:UntagResource kms:UpdateKeyDescription
    """,
    "lb:Listener": f"""
        {_BALANCER}:AddTags {_BALANCER}:CreateListener {_BALANCER}:DeleteListener
        {_BALANCER}:DescribeListenerAttributes {_BALANCER}:DescribeListeners
        {_BALANCER}:DescribeTags {_BALANCER}:ModifyListener {_BALANCER}:ModifyListenerAttributes
        {_BALANCER}:RemoveTags
    """,
    "lb:LoadBalancer": f"""
        {_BALANCER}:AddTags {_BALANCER}:CreateLoadBalancer {_BALANCER}:DeleteLoadBalancer
        {_BALANCER}:DescribeCapacityReservation {_BALANCER}:DescribeLoadBalancerAttributes
        {_BALANCER}:DescribeLoadBalancers {_BALANCER}:DescribeTags
        {_BALANCER}:ModifyLoadBalancerAttributes {_BALANCER}:RemoveTags
        {_BALANCER}:SetSecurityGroups {_BALANCER}:SetSubnets ec2:DescribeNetworkInterfaces
        ec2:DescribeSecurityGroups ec2:DescribeSubnets ec2:DescribeVpcs
        iam:CreateServiceLinkedRole
    """,
    "lb:TargetGroup": f"""
        {_BALANCER}:AddTags {_BALANCER}:CreateTargetGroup {_BALANCER}:DeleteTargetGroup
        {_BALANCER}:DescribeTags {_BALANCER}:DescribeTargetGroupAttributes
        {_BALANCER}:DescribeTargetGroups {_BALANCER}:ModifyTargetGroup
        {_BALANCER}:ModifyTargetGroupAttributes {_BALANCER}:RemoveTags
    """,
    "route53:Record": """
        route53:ChangeResourceRecordSets route53:GetChange route53:GetHostedZone
        route53:ListResourceRecordSets
    """,
    "route53:ResolverFirewallDomainList": """
        route53resolver:CreateFirewallDomainList route53resolver:DeleteFirewallDomainList
        route53resolver:GetFirewallDomainList route53resolver:ListFirewallDomains
        route53resolver:ListTagsForResource route53resolver:TagResource
        route53resolver:UntagResource route53resolver:UpdateFirewallDomains
    """,
    "route53:ResolverFirewallRule": """
        route53resolver:CreateFirewallRule route53resolver:DeleteFirewallRule
        route53resolver:ListFirewallRules route53resolver:UpdateFirewallRule
    """,
    "route53:ResolverFirewallRuleGroup": """
        route53resolver:CreateFirewallRuleGroup route53resolver:DeleteFirewallRuleGroup
        route53resolver:GetFirewallRuleGroup route53resolver:ListTagsForResource
        route53resolver:TagResource route53resolver:UntagResource
    """,
    "route53:ResolverFirewallRuleGroupAssociation": """
        ec2:DescribeVpcs route53resolver:AssociateFirewallRuleGroup
        route53resolver:DisassociateFirewallRuleGroup
        route53resolver:GetFirewallRuleGroupAssociation route53resolver:ListTagsForResource
        route53resolver:TagResource route53resolver:UntagResource
        route53resolver:UpdateFirewallRuleGroupAssociation
    """,
    "route53:Zone": """
        ec2:DescribeVpcs route53:AssociateVPCWithHostedZone route53:ChangeTagsForResource
        route53:CreateHostedZone route53:DeleteHostedZone route53:DisassociateVPCFromHostedZone
        route53:GetChange route53:GetHostedZone route53:ListResourceRecordSets
        route53:ListTagsForResource route53:UpdateHostedZoneComment
    """,
    "s3:Bucket": f"""
        s3:CreateBucket s3:DeleteBucket s3:DeleteObject s3:DeleteObjectVersion
        s3:ListBucketVersions s3:PutBucketTagging s3:TagResource s3:UntagResource {_S3_READS}
    """,
    "s3:BucketLifecycleConfiguration": """
        s3:GetLifecycleConfiguration s3:PutLifecycleConfiguration
    """,
    "s3:BucketLogging": "s3:GetBucketLogging s3:PutBucketLogging",
    "s3:BucketOwnershipControls": """
        s3:GetBucketOwnershipControls s3:PutBucketOwnershipControls
    """,
    "s3:BucketPolicy": "s3:DeleteBucketPolicy s3:GetBucketPolicy s3:PutBucketPolicy",
    "s3:BucketPublicAccessBlock": """
        s3:GetBucketPublicAccessBlock s3:PutBucketPublicAccessBlock
    """,
    "s3:BucketServerSideEncryptionConfiguration": """
        s3:GetEncryptionConfiguration s3:PutEncryptionConfiguration
    """,
    "s3:BucketVersioning": "s3:GetBucketVersioning s3:PutBucketVersioning",
    "sns:Topic": """
        sns:CreateTopic sns:DeleteTopic sns:GetTopicAttributes sns:ListTagsForResource
        sns:SetTopicAttributes sns:TagResource sns:UntagResource
    """,
    "sns:TopicPolicy": "sns:GetTopicAttributes sns:SetTopicAttributes",
    "sns:TopicSubscription": """
        sns:GetSubscriptionAttributes sns:ListSubscriptionsByTopic sns:SetSubscriptionAttributes
        sns:Subscribe sns:Unsubscribe
    """,
    "vpc:SecurityGroupEgressRule": f"{_RULES} {_TAGS}",
    "vpc:SecurityGroupIngressRule": f"{_RULES} {_TAGS}",
}
ACROSS_REGIONS = ("vpce:AllowMultiRegion",)
"""What an endpoint besides needs whose service is in another Region."""


def of(kind: str) -> list[str]:
    """The actions that a type such as ``aws:ec2/vpc:Vpc`` needs. Raises KeyError for another."""
    _, module, name = kind.split(":")
    return NEEDS[f"{module.partition('/')[0]}:{name}"].split()
