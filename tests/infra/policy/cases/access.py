from __future__ import annotations

import json
from typing import Any

from infra.policy import access
from tests.infra.policy.case import ABSENT, Case, case, never

_POLICY = "aws:iam/rolePolicy:RolePolicy"
_BUCKET = "aws:s3/bucketPolicy:BucketPolicy"
_ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
_KEY = "aws:kms/key:Key"
_ARN = "arn:aws:s3:::vault-1/*"
_OWN = {"StringEquals": {"aws:PrincipalAccount": "222222222222"}}
_ROOT = "arn:aws:iam::222222222222:root"
_LOGS_ARN = "arn:aws:logs:eu-central-1:222222222222:log-group:*"


def _document(**statement: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _documents(*documents: str) -> str:
    """One document with the statements of all."""
    statements = [one for document in documents for one in json.loads(document)["Statement"]]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def _identity(**change: Any) -> str:
    good = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [_ARN]}
    return _document(**{**good, **change})


def _shared(**change: Any) -> str:
    good = {"Effect": "Allow", "Principal": {"AWS": _ROOT}, "Action": "s3:GetObject"}
    return _document(**{**good, "Resource": _ARN, **change})


def _trust(service: str, condition: dict[str, Any] | None = None, **change: Any) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": ["sts:AssumeRole", "sts:TagSession"],
        **({"Condition": condition} if condition else {}),
        **change,
    }
    return _document(**statement)


_PODS = "pods.eks.amazonaws.com"
_ACCOUNT = {"aws:SourceAccount": "222222222222"}
_CLUSTER = {"aws:SourceArn": "arn:aws:eks:eu-central-1:222222222222:cluster/one"}
_OF_CLUSTER = {"StringEquals": {**_ACCOUNT, **_CLUSTER}}
_PROVIDER = "arn:aws:iam::222222222222:oidc-provider/oidc.example"
_SUBJECT = {"StringEquals": {"oidc.example:sub": "system:serviceaccount:heart-north:agent"}}
_METRICS = {"Action": "cloudwatch:PutMetricData", "Resource": "*"}
_NAMESPACE = {"Condition": {"StringEquals": {"cloudwatch:namespace": "fl"}}}
_BOUNDARY = "arn:aws:iam::222222222222:policy/fl-silos/boundary"
_LAYERS = "arn:aws:s3:::prod-eu-central-1-starport-layer-bucket/*"

_IDENTITIES: list[Case] = [
    case(
        access.actions,
        _POLICY,
        {"policy": _identity()},
        everything={"policy": _identity(Action="*")},
        service={"policy": _identity(Action=["s3:GetObject", "s3:*"])},
        unnamed={"policy": _identity(Action="*:*")},
    ),
    case(
        access.actions,
        access.ROLE,
        {"inlinePolicies": [{"name": "one", "policy": _identity()}]},
        inline={"inlinePolicies.0.policy": _identity(Action="s3:*")},
    ),
    case(
        access.actions,
        _BUCKET,
        {"policy": _shared()},
        bucket={"policy": _shared(Action="s3:*")},
    ),
    case(
        access.actions,
        _KEY,
        {"policy": _shared(Action="kms:*", Resource="*")},
        role={
            "policy": _shared(
                Action="kms:*", Principal={"AWS": "arn:aws:iam::222222222222:role/one"}
            )
        },
    ),
    case(
        access.resources,
        _POLICY,
        {"policy": _identity()},
        everything={"policy": _identity(Resource="*")},
        buckets={"policy": _identity(Resource=["arn:aws:s3:::*"])},
        objects={"policy": _identity(Resource=["arn:aws:s3:::*/*"])},
        everywhere={"policy": _identity(Action="logs:PutLogEvents", Resource="arn:aws:logs:*:*:*")},
        beside={
            "policy": _identity(Action=["ecr:GetAuthorizationToken", "s3:GetObject"], Resource="*")
        },
    ),
    case(
        access.resources,
        _POLICY,
        {"policy": _identity(**_METRICS, **_NAMESPACE)},
        any_namespace={"policy": _identity(**_METRICS)},
    ),
    case(
        access.resources,
        _POLICY,
        {"policy": _identity(Action="ecr:GetAuthorizationToken", Resource="*")},
        any_action={"policy": _identity(Action="ecr:BatchGetImage", Resource="*")},
    ),
    case(
        access.inverted,
        _POLICY,
        {"policy": _identity()},
        actions={"policy": _document(Effect="Allow", NotAction="iam:*", Resource=_ARN)},
        resources={"policy": _document(Effect="Allow", Action="s3:GetObject", NotResource=_ARN)},
    ),
    case(
        access.inverted,
        _BUCKET,
        {
            "policy": _document(
                Effect="Deny", NotPrincipal={"AWS": _ROOT}, Action="s3:*", Resource="*"
            )
        },
        principals={
            "policy": _document(
                Effect="Allow", NotPrincipal={"AWS": _ROOT}, Action="s3:GetObject", Resource=_ARN
            )
        },
    ),
    case(
        access.boundary,
        access.ROLE,
        {"path": "/fl-silos/", "permissionsBoundary": _BOUNDARY},
        boundless={"permissionsBoundary": ABSENT},
        other={"permissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess"},
        default_path={"path": ABSENT},
        other_path={"path": "/"},
    ),
    case(
        access.trust,
        access.ROLE,
        {
            "assumeRolePolicy": _documents(
                _trust(_PODS), _document(Effect="Deny", Principal="*", Action="sts:AssumeRole")
            ),
            "inlinePolicies": [{"name": "one", "policy": _shared(Principal="*")}],
        },
        any_provider={"assumeRolePolicy": _trust("", Principal={"Federated": "*"})},
        anybody={"assumeRolePolicy": _trust(_PODS, Principal="*")},
        any_account={"assumeRolePolicy": _trust(_PODS, Principal={"AWS": "*"})},
        but_one={
            "assumeRolePolicy": _document(
                Effect="Allow", NotPrincipal={"AWS": _ROOT}, Action="sts:AssumeRole"
            )
        },
    ),
    case(
        access.confined_trust,
        access.ROLE,
        {
            "assumeRolePolicy": _documents(
                _trust(_PODS, _OF_CLUSTER), _trust(_PODS, Effect="Deny")
            ),
            "inlinePolicies": [{"name": "one", "policy": _trust(_PODS)}],
        },
        anybody={"assumeRolePolicy": _trust(_PODS)},
        any_cluster={"assumeRolePolicy": _trust(_PODS, {"StringEquals": _ACCOUNT})},
        any_account={"assumeRolePolicy": _trust(_PODS, {"StringEquals": _CLUSTER})},
        if_exists={
            "assumeRolePolicy": _trust(_PODS, {"StringEqualsIfExists": _ACCOUNT | _CLUSTER})
        },
        negated={"assumeRolePolicy": _trust(_PODS, {"StringNotEquals": _ACCOUNT | _CLUSTER})},
        wide={
            "assumeRolePolicy": _trust(
                _PODS,
                {
                    "StringEquals": _ACCOUNT,
                    "ArnLike": {"aws:SourceArn": "arn:aws:eks:eu-central-1:*:cluster/*"},
                },
            )
        },
        flow_logs={"assumeRolePolicy": _trust("vpc-flow-logs.amazonaws.com")},
    ),
    case(
        access.confined_trust,
        access.ROLE,
        {
            "assumeRolePolicy": _trust(
                "",
                {"StringEquals": {"sts:ExternalId": "agreed"}},
                Principal={"AWS": "arn:aws:iam::111111111111:role/deployer"},
            )
        },
        any_caller={"assumeRolePolicy": _trust("", Principal={"AWS": _ROOT})},
    ),
    case(
        access.confined_trust,
        access.ROLE,
        {"assumeRolePolicy": _trust("", _SUBJECT, Principal={"Federated": _PROVIDER})},
        audience={
            "assumeRolePolicy": _trust(
                "",
                {"StringEquals": {"oidc.example:aud": "sts.amazonaws.com"}},
                Principal={"Federated": _PROVIDER},
            )
        },
    ),
    case(
        access.managed,
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        {"policyArn": "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy", "role": "one"},
        administrator={"policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"},
        service_role={"policyArn": "arn:aws:iam::aws:policy/service-role/AWSConfigRole"},
    ),
    case(
        access.managed,
        access.ROLE,
        {"managedPolicyArns": ["arn:aws:iam::222222222222:policy/own"]},
        power={"managedPolicyArns": ["arn:aws:iam::aws:policy/PowerUserAccess"]},
    ),
    never(
        access.users,
        "aws:iam/accessKey:AccessKey",
        "aws:iam/group:Group",
        "aws:iam/groupPolicy:GroupPolicy",
        "aws:iam/user:User",
        "aws:iam/userPolicyAttachment:UserPolicyAttachment",
        "aws:iam/userLoginProfile:UserLoginProfile",
        "aws:iam/serviceSpecificCredential:ServiceSpecificCredential",
        "aws:iam/sshKey:SshKey",
    ),
]

_SHARED: list[Case] = [
    case(
        access.public,
        _BUCKET,
        {"policy": _shared(Principal="*", Condition=_OWN)},
        anybody={"policy": _shared(Principal="*")},
        aws={"policy": _shared(Principal={"AWS": ["*"]})},
        if_exists={
            "policy": _shared(
                Principal="*",
                Condition={"StringEqualsIfExists": {"aws:PrincipalAccount": "222222222222"}},
            )
        },
        all_values={
            "policy": _shared(
                Principal="*",
                Condition={"ForAllValues:StringEquals": {"aws:PrincipalOrgID": "o-1"}},
            )
        },
        any_account={
            "policy": _shared(
                Principal="*", Condition={"StringLike": {"aws:PrincipalAccount": "*"}}
            )
        },
        any_role={
            "policy": _shared(
                Principal="*",
                Condition={"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/one"}},
            )
        },
        address={
            "policy": _shared(
                Principal="*", Condition={"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}}
            )
        },
    ),
    case(
        access.public,
        _BUCKET,
        {
            "policy": _shared(
                Principal="*",
                Condition={"ArnLike": {"aws:SourceArn": "arn:aws:sns:eu-central-1:222222222222:*"}},
            )
        },
        layers={"policy": _shared(Principal="*", Resource=_LAYERS)},
        any_bucket={
            "policy": _shared(
                Principal="*", Condition={"ArnLike": {"aws:SourceArn": "arn:aws:s3:::*"}}
            )
        },
    ),
    case(access.public, _KEY, {"policy": _shared()}, anybody={"policy": _shared(Principal="*")}),
    case(
        access.public,
        "aws:sqs/queuePolicy:QueuePolicy",
        {"policy": _shared()},
        anybody={"policy": _shared(Principal={"AWS": "*"})},
    ),
    case(
        access.public,
        "aws:sns/topicPolicy:TopicPolicy",
        {"policy": _shared()},
        anybody={"policy": _shared(Principal={"AWS": "*"})},
    ),
    case(
        access.public,
        "aws:ecr/repositoryPolicy:RepositoryPolicy",
        {"policy": _shared(Principal={"AWS": [_ROOT]})},
        anybody={"policy": _shared(Principal="*")},
    ),
    case(
        access.public,
        _ENDPOINT,
        {"policy": _shared(Principal="*", Action="*", Resource="*", Condition=_OWN)},
        anybody={"policy": _shared(Principal="*", Action="*", Resource="*")},
    ),
    case(
        access.public,
        _ENDPOINT,
        {"policy": _shared(Principal="*", Resource=_LAYERS)},
        other={"policy": _shared(Principal="*", Resource=[_LAYERS, _ARN])},
        writes={"policy": _shared(Principal="*", Action="s3:PutObject", Resource=_LAYERS)},
        buckets={"policy": _shared(Principal="*", Resource="arn:aws:s3:::prod-*/*")},
    ),
    case(
        access.services,
        _BUCKET,
        {
            "policy": _shared(
                Principal={"Service": "logging.s3.amazonaws.com"},
                Condition={"StringEquals": _ACCOUNT},
            )
        },
        anybody={"policy": _shared(Principal={"Service": "logging.s3.amazonaws.com"})},
    ),
    case(
        access.services,
        "aws:sns/topicPolicy:TopicPolicy",
        {
            "policy": _documents(
                _shared(),
                _shared(Principal="*", Condition={"StringEquals": {"aws:PrincipalOrgID": "o-1"}}),
            )
        },
        anybody={"policy": _shared(Principal={"Service": "cloudwatch.amazonaws.com"})},
    ),
    case(
        access.services,
        _KEY,
        {
            "policy": _shared(
                Principal={"Service": "logs.eu-central-1.amazonaws.com"},
                Action="kms:Decrypt",
                Condition={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": _LOGS_ARN}},
            )
        },
        anybody={
            "policy": _shared(
                Principal={"Service": "logs.eu-central-1.amazonaws.com"}, Action="kms:Decrypt"
            )
        },
        any_context={
            "policy": _shared(
                Principal={"Service": "logs.eu-central-1.amazonaws.com"},
                Action="kms:Decrypt",
                Condition={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": "arn:aws:logs:*:*:*"}},
            )
        },
    ),
]

CASES = [*_IDENTITIES, *_SHARED]
