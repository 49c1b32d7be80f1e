from __future__ import annotations

from infra.policy import cluster
from tests.infra.policy.case import ABSENT, case, never

ROLE = "arn:aws:iam::222222222222:role/fl-silos/deployer-kubernetes"
USER = "arn:aws:iam::222222222222:user/somebody"
GOOD = {
    "accessConfig": {
        "authenticationMode": "API",
        "bootstrapClusterCreatorAdminPermissions": False,
    },
    "vpcConfig": {"endpointPrivateAccess": True, "endpointPublicAccess": False},
    "encryptionConfig": {"provider": {"keyArn": "arn:key"}, "resources": ["secrets"]},
    "enabledClusterLogTypes": [*cluster.LOGS],
    "computeConfig": {"enabled": True, "nodePools": ["system", "general-purpose"]},
    "storageConfig": {"blockStorage": {"enabled": True}},
    "kubernetesNetworkConfig": {"elasticLoadBalancing": {"enabled": True}},
    "version": "1.33",
    "upgradePolicy": {"supportType": "STANDARD"},
}
PUBLIC = {
    **GOOD,
    "vpcConfig": {
        "endpointPrivateAccess": True,
        "endpointPublicAccess": True,
        "publicAccessCidrs": ["198.51.100.0/24", "2001:db8::/32"],
    },
}
_KIND = cluster.CLUSTER
_PUBLIC = "vpcConfig.publicAccessCidrs"

CASES = [
    case(
        cluster.authentication,
        _KIND,
        GOOD,
        both={"accessConfig.authenticationMode": "API_AND_CONFIG_MAP"},
        default={"accessConfig": ABSENT},
    ),
    case(
        cluster.creator,
        _KIND,
        GOOD,
        true={"accessConfig.bootstrapClusterCreatorAdminPermissions": True},
        default={"accessConfig": {"authenticationMode": "API"}},
    ),
    case(
        cluster.private_endpoint,
        _KIND,
        GOOD,
        false={"vpcConfig.endpointPrivateAccess": False},
        default={"vpcConfig": {}},
    ),
    case(
        cluster.public_endpoint,
        _KIND,
        GOOD,
        default={"vpcConfig.endpointPublicAccess": ABSENT},
        everybody={"vpcConfig.endpointPublicAccess": True},
    ),
    case(
        cluster.public_endpoint,
        _KIND,
        PUBLIC,
        world={_PUBLIC: ["0.0.0.0/0"]},
        half={_PUBLIC: ["198.51.100.0/24", "128.0.0.0/1"]},
        ipv6={_PUBLIC: ["::/0"]},
        provider={_PUBLIC: ["198.0.0.0/15"]},
        nonsense={_PUBLIC: ["anywhere"]},
        empty={_PUBLIC: []},
    ),
    case(
        cluster.secrets_encrypted,
        _KIND,
        GOOD,
        default={"encryptionConfig": ABSENT},
        key={"encryptionConfig.provider": {}},
        other={"encryptionConfig.resources": ["configmaps"]},
    ),
    case(
        cluster.control_plane_logs,
        _KIND,
        GOOD,
        default={"enabledClusterLogTypes": ABSENT},
        audit={"enabledClusterLogTypes": ["api", "authenticator"]},
    ),
    case(
        cluster.auto_mode,
        _KIND,
        GOOD,
        default={"computeConfig": ABSENT},
        compute={"computeConfig.enabled": False},
        disks={"storageConfig.blockStorage.enabled": False},
        balancers={"kubernetesNetworkConfig": {}},
    ),
    case(cluster.version, _KIND, GOOD, default={"version": ABSENT}, latest={"version": "latest"}),
    case(
        cluster.upgrade_policy,
        _KIND,
        GOOD,
        default={"upgradePolicy": ABSENT},
        extended={"upgradePolicy.supportType": "EXTENDED"},
    ),
    case(
        cluster.entries,
        "aws:eks/accessEntry:AccessEntry",
        {"principalArn": ROLE, "clusterName": "one", "kubernetesGroups": ["operators"]},
        masters={"kubernetesGroups": ["operators", "system:masters"]},
        user={"principalArn": USER},
        root={"principalArn": "arn:aws:iam::222222222222:root"},
    ),
    case(
        cluster.admins,
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        {
            "principalArn": ROLE,
            "policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy",
            "accessScope": {"type": "cluster"},
        },
        user={"principalArn": USER},
    ),
    case(
        cluster.admins,
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        {
            "principalArn": USER,
            "policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy",
        },
        admin={"policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSAdminPolicy"},
    ),
    never(cluster.identities, "aws:eks/identityProviderConfig:IdentityProviderConfig"),
    case(
        cluster.nodes,
        "aws:eks/nodeGroup:NodeGroup",
        {"launchTemplate": {"id": "lt-1", "version": "1"}},
        ssh={"remoteAccess": {"ec2SshKey": "me"}},
        default={"launchTemplate": ABSENT},
    ),
]
