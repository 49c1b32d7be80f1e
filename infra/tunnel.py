"""A host to reach a private cluster API by: AWS Systems Manager forwards a port of one's own."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from infra.accounts import PATH, Account
from infra.endpoints import HTTPS
from infra.policies import allow, document, trusted
from infra.roles import service_role

INSTANCE = "t4g.nano"
IMAGE = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
DOCUMENT = "AWS-StartPortForwardingSessionToRemoteHost"
ROOT_DEVICE = "/dev/xvda"


class Tunnel(pulumi.ComponentResource):
    """A small host that nothing can connect to: its agent dials out to Systems Manager."""

    def __init__(
        self,
        account: Account,
        vpc: aws.ec2.Vpc,
        cidr: str,
        subnet_id: pulumi.Input[str],
        endpoints: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions,
    ) -> None:
        """``endpoints``: those that the host's agent needs."""
        super().__init__("fl-silos:infra:Tunnel", account.named("tunnel"), None, opts)
        self._account = account
        group = aws.ec2.SecurityGroup(
            account.named("tunnel"),
            description="Host of the tunnel to the cluster's API",
            vpc_id=vpc.id,
            tags={"Name": account.named("tunnel")},
            opts=account.child(self),
        )
        egress = aws.vpc.SecurityGroupEgressRule(
            account.named("tunnel"),
            security_group_id=group.id,
            description="HTTPS to the cluster's API and the endpoints of AWS services",
            cidr_ipv4=cidr,
            ip_protocol="tcp",
            from_port=HTTPS,
            to_port=HTTPS,
            opts=account.child(self),
        )
        profile, policy = self._profile(vpc)
        template = self._template(group, profile)
        host = aws.ec2.Instance(
            account.named("tunnel"),
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            subnet_id=subnet_id,
            tags={"Name": account.named("tunnel")},
            opts=account.child(self, depends_on=[policy, egress, *endpoints]),
        )
        self.security_group_id = group.id
        self.instance_id = host.id
        self.register_outputs({})

    def command(self, host: pulumi.Input[str], port: int) -> pulumi.Output[str]:
        """What opens the tunnel: ``host`` on this machine's ``port``, until it is stopped."""

        def line(instance: str, host: str) -> str:
            parameters = {
                "host": [host],
                "portNumber": [str(HTTPS)],
                "localPortNumber": [str(port)],
            }
            return (
                f"aws ssm start-session --region {self._account.region} --target {instance} "
                f"--document-name {DOCUMENT} --parameters '{json.dumps(parameters)}'"
            )

        return pulumi.Output.all(self.instance_id, host).apply(lambda known: line(*known))

    def _profile(self, vpc: aws.ec2.Vpc) -> tuple[aws.iam.InstanceProfile, pulumi.Resource]:
        """What Session Manager needs, and less than AWS's policy for it: that reads parameters."""
        account = self._account
        role = service_role(
            account,
            self,
            "tunnel",
            "Host of the tunnel to the cluster's API",
            trusted("ec2.amazonaws.com"),
        )
        # Stolen, the host's credentials are worth nothing outside this network.
        inside = {"StringEquals": {"aws:SourceVpc": vpc.id}}
        policy = aws.iam.RolePolicy(
            account.named("tunnel"),
            role=role.name,
            policy=document(
                allow(
                    "Report",
                    ["ssm:UpdateInstanceInformation"],
                    [account.arn("ec2", "instance/*")],
                    Condition=inside,
                ),
                # These actions know no resources.
                allow(
                    "Sessions",
                    [
                        "ssmmessages:CreateControlChannel",
                        "ssmmessages:CreateDataChannel",
                        "ssmmessages:OpenControlChannel",
                        "ssmmessages:OpenDataChannel",
                    ],
                    ["*"],
                    Condition=inside,
                ),
            ),
            opts=account.child(self),
        )
        profile = aws.iam.InstanceProfile(
            account.named("tunnel"), path=PATH, role=role.name, opts=account.child(self)
        )
        return profile, policy

    def _template(
        self, group: aws.ec2.SecurityGroup, profile: aws.iam.InstanceProfile
    ) -> aws.ec2.LaunchTemplate:
        account = self._account
        return aws.ec2.LaunchTemplate(
            account.named("tunnel"),
            # Resolved when the host is made: to renew its system, replace it.
            image_id=IMAGE,
            instance_type=INSTANCE,
            update_default_version=True,
            iam_instance_profile={"arn": profile.arn},
            metadata_options={
                "http_endpoint": "enabled",
                "http_tokens": "required",
                "http_put_response_hop_limit": 1,
            },
            block_device_mappings=[
                {
                    "device_name": ROOT_DEVICE,
                    "ebs": {"encrypted": "true", "volume_type": "gp3"},
                }
            ],
            vpc_security_group_ids=[group.id],
            # No surprise on the bill; what forwards bytes needs no burst.
            credit_specification={"cpu_credits": "standard"},
            opts=account.child(self),
        )
