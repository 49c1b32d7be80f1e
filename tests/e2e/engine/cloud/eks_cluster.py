"""The component of an EKS cluster in Auto Mode, with the children that the real one registers.

Part of a test double. It knows Auto Mode with access by API: no node groups, add-ons, Fargate,
aws-auth, storage classes, or default VPC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

POLICY = "arn:aws:iam::aws:policy"
CLUSTER_POLICIES = """AmazonEKSClusterPolicy AmazonEKSComputePolicy AmazonEKSBlockStoragePolicy
    AmazonEKSLoadBalancingPolicy AmazonEKSNetworkingPolicy""".split()
NODE_POLICIES = "AmazonEKSWorkerNodeMinimalPolicy AmazonEC2ContainerRegistryPullOnly".split()
UNKNOWN_TO_DOUBLE = """fargate roleMappings userMappings storageClasses instanceRole instanceRoles
    nodeGroupOptions creationRoleProvider clusterSecurityGroup vpcCniOptions""".split()
IGNORED = ["accessConfig.bootstrapClusterCreatorAdminPermissions", "bootstrapSelfManagedAddons"]

Inputs = Mapping[str, Any]


class Cluster(pulumi.ComponentResource):
    """``eks:index:Cluster``: its outputs are in ``state``."""

    def __init__(self, name: str, inputs: Inputs, options: pulumi.ResourceOptions) -> None:
        super().__init__("eks:index:Cluster", name, None, options)
        _check(inputs)
        providers = options.providers
        provider = providers.get("aws") if isinstance(providers, Mapping) else None
        self._child = pulumi.ResourceOptions(parent=self, provider=provider)
        self._inputs = inputs
        mode = inputs["autoMode"]
        service_role, attachments = self._service_role(name)
        self.cluster = aws.eks.Cluster(
            f"{name}-eksCluster",
            name=inputs.get("name"),
            role_arn=service_role.apply(lambda role: role.arn),
            compute_config=self._compute(name, mode, attachments),
            storage_config={"block_storage": {"enabled": True}},
            kubernetes_network_config={
                "ip_family": inputs.get("ipFamily", "ipv4"),
                "service_ipv4_cidr": inputs.get("kubernetesServiceIpAddressRange"),
                "elastic_load_balancing": {"enabled": True},
            },
            bootstrap_self_managed_addons=False,
            vpc_config={
                "subnet_ids": self._subnets(),
                "endpoint_private_access": inputs.get("endpointPrivateAccess"),
                "endpoint_public_access": inputs.get("endpointPublicAccess"),
                "public_access_cidrs": inputs.get("publicAccessCidrs"),
            },
            version=inputs.get("version"),
            enabled_cluster_log_types=inputs.get("enabledClusterLogTypes"),
            tags=_tags(f"{name}-eksCluster", inputs),
            encryption_config=_encryption(inputs.get("encryptionConfigKeyArn")),
            access_config={
                "authentication_mode": inputs["authenticationMode"],
                "bootstrap_cluster_creator_admin_permissions": True,
            },
            upgrade_policy=_upgrade_policy(inputs.get("upgradePolicy")),
            deletion_protection=inputs.get("deletionProtection"),
            opts=pulumi.ResourceOptions.merge(
                self._child, pulumi.ResourceOptions(depends_on=attachments, ignore_changes=IGNORED)
            ),
        )
        self._access_entries(name)
        oidc = self._oidc(name)
        group = self.cluster.vpc_config.cluster_security_group_id
        config = _kubeconfig(self.cluster, inputs.get("providerCredentialOpts"))
        text = config.apply(json.dumps)
        provider_of_component = kubernetes.Provider(
            f"{name}-eks-k8s", kubeconfig=text, opts=pulumi.ResourceOptions(parent=self)
        )
        issuer = self.cluster.identities.apply(lambda found: found[0].oidcs[0].issuer)
        self.state: dict[str, Any] = {
            "autoModeNodeRoleName": "",
            "awsProvider": provider,
            "clusterIngressRuleId": "",
            "clusterSecurityGroupId": group,
            "core": {
                "cluster": self.cluster,
                "clusterIamRole": service_role,
                "endpoint": self.cluster.endpoint,
                "instanceRoles": [],
                "kubeconfig": config,
                "nodeGroupOptions": {},
                "provider": provider_of_component,
                "subnetIds": self._subnets(),
                "vpcId": inputs.get("vpcId"),
            },
            "defaultNodeGroupAsgName": "",
            "eksCluster": self.cluster,
            "fargateProfileId": "",
            "fargateProfileStatus": "",
            "instanceRoles": [],
            "kubeconfig": config,
            "kubeconfigJson": text,
            "nodeSecurityGroupId": group,
            "oidcIssuer": issuer.apply(lambda url: str(url).removeprefix("https://")),
            "oidcProviderArn": oidc.arn if oidc else "",
            "oidcProviderUrl": issuer,
        }
        self.register_outputs(self.state)

    def _subnets(self) -> Any:
        given = self._inputs.get("subnetIds")
        if given is not None:
            return given
        both = [self._inputs.get("publicSubnetIds", []), self._inputs.get("privateSubnetIds", [])]
        return pulumi.Output.all(*both).apply(lambda parts: [*parts[0], *parts[1]])

    def _service_role(self, name: str) -> tuple[pulumi.Output[Any], list[pulumi.Resource]]:
        given = self._inputs.get("serviceRole")
        if given is not None:
            return pulumi.Output.from_input(given), []
        role, attachments = self._role(f"{name}-eksRole", "eks.amazonaws.com", CLUSTER_POLICIES)
        return pulumi.Output.from_input(role), attachments

    def _compute(self, name: str, mode: Inputs, attachments: list[pulumi.Resource]) -> Any:
        given = mode.get("computeConfig") or {}
        config: dict[str, Any] = {
            "enabled": True,
            "node_pools": given.get("nodePools", ["general-purpose", "system"]),
            "node_role_arn": given.get("nodeRoleArn"),
        }
        if mode.get("createNodeRole", True):
            role, more = self._role(f"{name}-nodeRole", "ec2.amazonaws.com", NODE_POLICIES)
            attachments += more
            config["node_role_arn"] = given.get("nodeRoleArn", role.arn)
        return config

    def _role(
        self, name: str, service: str, policies: list[str]
    ) -> tuple[aws.iam.Role, list[pulumi.Resource]]:
        trust = {"Effect": "Allow", "Principal": {"Service": service}}
        trust |= {"Action": ["sts:AssumeRole", "sts:TagSession"]}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        role = aws.iam.Role(f"{name}-role", assume_role_policy=document, opts=self._child)
        return role, [
            aws.iam.RolePolicyAttachment(
                f"{name}-{policy}",
                role=role.name,
                policy_arn=f"{POLICY}/{policy}",
                opts=self._child,
            )
            for policy in policies
        ]

    def _access_entries(self, name: str) -> None:
        """Who may use the cluster's API; each policy hangs on its entry."""
        options = pulumi.ResourceOptions.merge(
            self._child, pulumi.ResourceOptions(depends_on=[self.cluster])
        )
        for entry, given in (self._inputs.get("accessEntries") or {}).items():
            made = aws.eks.AccessEntry(
                f"{name}-{entry}",
                cluster_name=self.cluster.name,
                principal_arn=given["principalArn"],
                kubernetes_groups=given.get("kubernetesGroups"),
                type=given.get("type"),
                user_name=given.get("username"),
                tags=given.get("tags"),
                opts=options,
            )
            for policy, association in (given.get("accessPolicies") or {}).items():
                scope = association["accessScope"]
                aws.eks.AccessPolicyAssociation(
                    f"{name}-{entry}-{policy}",
                    cluster_name=self.cluster.name,
                    principal_arn=made.principal_arn,
                    policy_arn=association["policyArn"],
                    access_scope={"type": scope["type"], "namespaces": scope.get("namespaces")},
                    opts=pulumi.ResourceOptions.merge(
                        self._child, pulumi.ResourceOptions(depends_on=[made])
                    ),
                )

    def _oidc(self, name: str) -> aws.iam.OpenIdConnectProvider | None:
        if not self._inputs.get("createOidcProvider"):
            return None
        return aws.iam.OpenIdConnectProvider(
            f"{name}-oidcProvider",
            client_id_lists=["sts.amazonaws.com"],
            url=self.cluster.identities.apply(lambda found: found[0].oidcs[0].issuer),
            opts=self._child,
        )


def _check(inputs: Inputs) -> None:
    """Raises ValueError for what the real component refuses, and what this double does not know."""
    asked = [key for key in UNKNOWN_TO_DOUBLE if inputs.get(key)]
    coredns = inputs.get("corednsAddonOptions") or {}
    if coredns.get("enabled", True):
        asked.append("corednsAddonOptions.enabled (true unless given)")
    if not (inputs.get("autoMode") or {}).get("enabled"):
        asked.append("autoMode.enabled=False")
    if inputs.get("skipDefaultNodeGroup") is not True:
        asked.append("skipDefaultNodeGroup (false unless given)")
    if asked:
        raise ValueError(f"this test double knows no {', '.join(asked)}")
    if inputs.get("authenticationMode") not in ("API", "API_AND_CONFIG_MAP"):
        raise ValueError("Access entries are required when using EKS Auto Mode")
    if inputs["authenticationMode"] != "API":
        raise ValueError("this test double knows no aws-auth")
    if inputs.get("endpointPublicAccess") is False and inputs.get("publicAccessCidrs"):
        raise ValueError("publicAccessCidrs can only be set when endpointPublicAccess is true")


def _tags(name: str, inputs: Inputs) -> Any:
    given = [inputs.get("clusterTags") or {}, inputs.get("tags") or {}]
    return pulumi.Output.all(*given).apply(lambda both: {"Name": name, **both[0], **both[1]})


def _encryption(key: Any) -> Any:
    return None if key is None else {"provider": {"key_arn": key}, "resources": ["secrets"]}


def _upgrade_policy(given: Any) -> Any:
    return None if given is None else {"support_type": given.get("supportType")}


def _kubeconfig(cluster: aws.eks.Cluster, given: Inputs | None) -> pulumi.Output[Any]:
    values = [cluster.name, cluster.endpoint, cluster.certificate_authority, cluster.arn]
    return pulumi.Output.all(*values, given or {}).apply(lambda known: _rendered(*known))


def _rendered(name: str, endpoint: str, authority: Any, arn: str, given: Inputs) -> dict[str, Any]:
    region = arn.split(":")[3]
    arguments = ["--region", region, "eks", "get-token", "--cluster-name", name]
    if given.get("roleArn"):
        arguments += ["--role", given["roleArn"]]
    variables = [{"name": "KUBERNETES_EXEC_INFO", "value": '{"apiVersion": "v1beta1"}'}]
    if given.get("profileName"):
        variables.append({"name": "AWS_PROFILE", "value": given["profileName"]})
    command = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": arguments,
        "env": variables,
    }
    known = {"server": endpoint, "certificate-authority-data": authority["data"]}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kubernetes", "cluster": known}],
        "contexts": [{"name": "aws", "context": {"cluster": "kubernetes", "user": "aws"}}],
        "current-context": "aws",
        "users": [{"name": "aws", "user": {"exec": command}}],
    }
