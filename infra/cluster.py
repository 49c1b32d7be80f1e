"""A party's cluster: EKS, whose Auto Mode runs the nodes, and who may talk to its API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks

from infra.accounts import Account
from infra.config.aws import SERVICE_CIDR, Site
from infra.endpoints import HTTPS
from infra.network import Network
from infra.party import cluster_provider
from infra.policies import allow, document, trusted
from infra.roles import service_role

if TYPE_CHECKING:
    from infra.keys import Key
    from infra.logs import Logs

NODE_POOLS = ("system", "general-purpose")
CONTROL_PLANE_LOGS = ("api", "audit", "authenticator", "controllerManager", "scheduler")
ADMIN = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
CLUSTER_POLICIES = (
    "AmazonEKSClusterPolicy",
    "AmazonEKSComputePolicy",
    "AmazonEKSBlockStoragePolicy",
    "AmazonEKSLoadBalancingPolicy",
    "AmazonEKSNetworkingPolicy",
)
NODE_POLICIES = ("AmazonEKSWorkerNodeMinimalPolicy", "AmazonEC2ContainerRegistryPullOnly")
_ID_LENGTH = 8
_CLUSTER = "aws:eks/cluster:Cluster"


class Cluster(pulumi.ComponentResource):
    """EKS with Auto Mode, two roles, one way in, and the provider of what runs on it."""

    def __init__(
        self,
        account: Account,
        site: Site,
        network: Network,
        key: Key,
        logs: Logs,
        version: str,
        protect: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """``key``: encrypts Secrets and volumes. ``version``: of Kubernetes."""
        super().__init__("fl-silos:infra:Cluster", account.named("cluster"), None, opts)
        self._account = account
        # EKS goes on writing while a cluster is deleted and makes its log group again; with a name
        # of its own the next cluster is not in the way of what is left.
        name = network.vpc_id.apply(
            lambda vpc: f"{account.federation}-{account.party}-{vpc[-_ID_LENGTH:]}"
        )
        group = logs.cluster(name)
        role, role_needs = self._role(
            "cluster", "eks.amazonaws.com", ("sts:AssumeRole", "sts:TagSession"), CLUSTER_POLICIES
        )
        node_role, node_needs = self._role(
            "node", "ec2.amazonaws.com", ("sts:AssumeRole",), NODE_POLICIES
        )
        needs = [*role_needs, self._use_of(key, role), *node_needs, group, *network.endpoints]
        made = eks.Cluster(
            account.named("eks"),
            name=name,
            version=version,
            vpc_id=network.vpc_id,
            private_subnet_ids=network.subnet_ids,
            endpoint_private_access=True,
            endpoint_public_access=bool(site.api.cidrs),
            public_access_cidrs=[*site.api.cidrs] or None,
            kubernetes_service_ip_address_range=SERVICE_CIDR,
            service_role=role,
            auto_mode=eks.AutoModeOptionsArgs(
                enabled=True,
                create_node_role=False,
                compute_config=eks.ClusterComputeConfigArgs(
                    node_pools=[*NODE_POOLS], node_role_arn=node_role.arn
                ),
            ),
            # Auto Mode brings nodes and DNS of its own; without these two there would be others.
            skip_default_node_group=True,
            coredns_addon_options=eks.CoreDnsAddonOptionsArgs(enabled=False),
            authentication_mode=eks.AuthenticationMode.API,
            access_entries={
                "deployer": eks.AccessEntryArgs(
                    principal_arn=account.kubernetes_role,
                    access_policies={
                        "admin": eks.AccessPolicyAssociationArgs(
                            policy_arn=ADMIN,
                            access_scope=aws.eks.AccessPolicyAssociationAccessScopeArgs(
                                type="cluster"
                            ),
                        )
                    },
                )
            },
            provider_credential_opts=eks.KubeconfigOptionsArgs(role_arn=account.kubernetes_role),
            encryption_config_key_arn=key.arn,
            enabled_cluster_log_types=[*CONTROL_PLANE_LOGS],
            upgrade_policy=aws.eks.ClusterUpgradePolicyArgs(support_type="STANDARD"),
            deletion_protection=protect,
            opts=pulumi.ResourceOptions.merge(
                account.child(self, protect=protect, depends_on=needs),
                pulumi.ResourceOptions(transforms=[without_creator]),
            ),
        )
        inner = made.eks_cluster
        self.name: pulumi.Output[str] = inner.apply(lambda cluster: cluster.name)
        self.arn: pulumi.Output[str] = inner.apply(lambda cluster: cluster.arn)
        self.endpoint: pulumi.Output[str] = inner.apply(lambda cluster: cluster.endpoint)
        self.security_group_id: pulumi.Output[str] = made.cluster_security_group_id
        self.role_name, self.role_arn = role.name, role.arn
        self.node_role_name, self.node_role_arn = node_role.name, node_role.arn
        self.component = made
        """What depends on it waits for the access entries, too."""
        self.kubeconfig = made.kubeconfig_json.apply(
            lambda config: through_tunnel(config, site.api.tunnel)
        )
        """Names and public certificates; whoever uses it shows who he is by his own AWS role."""
        self.tunnel_command = self._tunnel_command(site, network)
        reached_by = [made, *self._way_in(site, network)]
        self.kubernetes = cluster_provider(
            account.named("kubernetes"),
            self.kubeconfig,
            pulumi.ResourceOptions(parent=self, depends_on=reached_by),
            # The cluster stays the same by whichever way it is reached; a new one has a new name.
            cluster_identifier=self.endpoint,
        )
        self.register_outputs({})

    def _role(
        self, what: str, service: str, actions: tuple[str, ...], policies: tuple[str, ...]
    ) -> tuple[aws.iam.Role, list[pulumi.Resource]]:
        """A role for a service, with policies of AWS's, and what has to be there with it."""
        account = self._account
        trust = trusted(service, actions)
        role = service_role(account, self, what, f"EKS: the {what}'s role", trust)
        attached: list[pulumi.Resource] = [
            aws.iam.RolePolicyAttachment(
                account.named(f"{what}-{policy}"),
                role=role.name,
                policy_arn=f"arn:aws:iam::aws:policy/{policy}",
                opts=account.child(self),
            )
            for policy in policies
        ]
        return role, attached

    def _use_of(self, key: Key, role: aws.iam.Role) -> pulumi.Resource:
        """Volumes under the key: EKS makes them, and lets EC2 use the key for each."""
        return aws.iam.RolePolicy(
            self._account.named("cluster-key"),
            role=role.name,
            policy=document(
                allow(
                    "Volumes",
                    [
                        "kms:Decrypt",
                        "kms:DescribeKey",
                        "kms:Encrypt",
                        "kms:GenerateDataKey",
                        "kms:GenerateDataKeyWithoutPlaintext",
                        "kms:ReEncryptFrom",
                        "kms:ReEncryptTo",
                    ],
                    [key.arn],
                ),
                allow(
                    "Grants",
                    ["kms:CreateGrant"],
                    [key.arn],
                    Condition={"Bool": {"kms:GrantIsForAWSResource": "true"}},
                ),
            ),
            opts=self._account.child(self),
        )

    def _way_in(self, site: Site, network: Network) -> list[pulumi.Resource]:
        """To the private API, for who deploys: by the tunnel, or else from within the network.

        EKS itself lets in the nodes only. A public API needs no such rule. What it gives has to be
        there as long as objects in the cluster.
        """
        if site.api.cidrs:
            return []
        source: dict[str, Any] = (
            {"cidr_ipv4": network.cidr}
            if network.tunnel is None
            else {"referenced_security_group_id": network.tunnel.security_group_id}
        )
        rule = aws.vpc.SecurityGroupIngressRule(
            self._account.named("api"),
            security_group_id=self.security_group_id,
            description="The cluster's API, for who deploys",
            ip_protocol="tcp",
            from_port=HTTPS,
            to_port=HTTPS,
            opts=self._account.child(self),
            **source,
        )
        return [rule] if network.tunnel is None else [rule, network.tunnel]

    def _tunnel_command(self, site: Site, network: Network) -> pulumi.Output[str] | None:
        if network.tunnel is None or site.api.tunnel is None:
            return None
        host = self.endpoint.apply(lambda endpoint: urlsplit(endpoint).hostname or "")
        return network.tunnel.command(host, site.api.tunnel)


def without_creator(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    """Who makes the cluster is no administrator of it: pulumi-eks has no argument for that."""
    if args.type_ != _CLUSTER:
        return None
    properties: dict[str, Any] = dict(args.props)
    access = {**properties["accessConfig"], "bootstrapClusterCreatorAdminPermissions": False}
    return pulumi.ResourceTransformResult({**properties, "accessConfig": access}, args.opts)


def through_tunnel(config: str, port: int | None) -> str:
    """The kubeconfig, its API's server on a port of this machine if there is a ``port``.

    The server is still the one of that name: its certificate is checked against it.
    """
    if port is None:
        return config
    known = json.loads(config)
    for entry in known["clusters"]:
        cluster = entry["cluster"]
        cluster["tls-server-name"] = urlsplit(cluster["server"]).hostname
        cluster["server"] = f"https://localhost:{port}"
    return json.dumps(known, sort_keys=True)
