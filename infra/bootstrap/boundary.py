"""The most that any role made by the deployer may do, whatever its own policies say.

EKS' roles have policies of AWS's, which are made for every cluster there is. Of these, only what
Auto Mode does here is left: no load balancers made by objects in the cluster, no routes.
"""

from __future__ import annotations

from fl_core.tracking import experiments
from infra.bootstrap.place import Place, actions
from infra.policies import Statement, allow

_MACHINES = """
    AssignPrivateIpAddresses AssociateTrunkInterface AttachNetworkInterface AttachVolume
    AuthorizeSecurityGroupIngress CreateFleet CreateLaunchTemplate CreateNetworkInterface
    CreateSecurityGroup CreateSnapshot CreateTags CreateVolume DeleteNetworkInterface
    DeleteSecurityGroup DeleteVolume Describe* DetachNetworkInterface DetachVolume
    DisassociateTrunkInterface GetSecurityGroupsForVpc ModifyInstanceAttribute
    ModifyNetworkInterfaceAttribute ModifyVolume RevokeSecurityGroupIngress RunInstances
    UnassignPrivateIpAddresses
"""
_TRACKED = (experiments.EXPERIMENT, experiments.TRIAL, experiments.COMPONENT)
_KEYS = """
    Decrypt DescribeKey Encrypt GenerateDataKey GenerateDataKeyWithoutPlaintext ReEncryptFrom
    ReEncryptTo
"""


def statements(at: Place) -> list[Statement]:
    """As the boundary's policy has them."""
    own = at.here(**{"aws:ResourceAccount": at.settings.account})
    return [
        allow("Machines", actions("ec2", _MACHINES), ["*"], **at.here()),
        allow(
            "Targets",
            [
                "elasticloadbalancing:DeregisterTargets",
                "elasticloadbalancing:Describe*",
                "elasticloadbalancing:RegisterTargets",
            ],
            ["*"],
            **at.here(),
        ),
        allow(
            "NodesProfile",
            ["iam:AddRoleToInstanceProfile"],
            [at.everywhere("iam", "instance-profile/eks*")],
        ),
        allow(
            "NodesRole",
            ["iam:PassRole"],
            [at.roles],
            Condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        ),
        allow("Pods", ["eks-auth:AssumeRoleForPodIdentity"], ["*"], **at.here()),
        # The silos' images are in the aggregator's account.
        allow(
            "Images",
            [
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:GetAuthorizationToken",
                "ecr:GetDownloadUrlForLayer",
            ],
            ["*"],
            **at.here(),
        ),
        allow(
            "Data",
            sorted(["s3:GetObject", "s3:ListBucket", *experiments.ARTIFACT_ACTIONS]),
            ["*"],
            **own,
        ),
        allow("Keys", actions("kms", _KEYS), ["*"], **own),
        allow(
            "Grants",
            ["kms:CreateGrant"],
            ["*"],
            Condition={**own["Condition"], "Bool": {"kms:GrantIsForAWSResource": "true"}},
        ),
        allow(
            "Tracking",
            [f"sagemaker:{action}" for action in sorted(experiments.ACTIONS)],
            [at.arn("sagemaker", f"{kind}/*") for kind in _TRACKED],
            **at.here(),
        ),
        allow(
            "Logs",
            [
                "logs:CreateLogStream",
                "logs:DescribeLogStreams",
                "logs:PutLogEvents",
            ],
            [at.arn("logs", "log-group:*")],
            **at.here(),
        ),
        allow(
            "Metrics",
            [
                "cloudwatch:PutMetricData",
                "ec2:DescribeTags",
                "ec2:DescribeVolumes",
                "logs:DescribeLogGroups",
            ],
            ["*"],
            **at.here(),
        ),
        allow(
            "Tunnel",
            [
                "ssm:UpdateInstanceInformation",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            ["*"],
            **at.here(),
        ),
    ]
