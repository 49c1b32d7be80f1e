from __future__ import annotations

import json

from infra.policy import accounts, plaintext
from tests.infra.policy.case import ABSENT, Case, case, resource

_ROLE = {
    "roleArn": "arn:aws:iam::222222222222:role/fl-silos/deployer",
    "externalId": "external-north",
}
_GOOD = {
    "region": "eu-central-1",
    "assumeRoles": json.dumps([_ROLE]),
    "allowedAccountIds": json.dumps(["222222222222"]),
    "defaultTags": json.dumps({"tags": {"fl-silos:party": "north"}}),
}
_VPC, _MAP = "aws:ec2/vpc:Vpc", "kubernetes:core/v1:ConfigMap"
_DEFAULT = "urn:pulumi:dev::fl-silos::pulumi:providers:aws::default_7_51_1"
_PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n"
_EC = "LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0tCk1IY0NBUUVF"

CASES: list[Case] = [
    Case(
        accounts.explicit,
        (
            resource(_VPC, {}),
            resource(_MAP, {}),
            resource("kubernetes:helm.sh/v4:Chart", {}, provider=""),
        ),
        {
            "aws": (resource(_VPC, {}, provider=""),),
            "kubernetes": (resource(_MAP, {}, provider=""),),
            "default": (resource(_VPC, {}, provider=_DEFAULT),),
        },
    ),
    case(
        accounts.provider,
        accounts.AWS,
        _GOOD,
        no_role={"assumeRoles": ABSENT},
        nobody_expected={"assumeRoles": json.dumps([{"roleArn": _ROLE["roleArn"]}])},
        any_account={"allowedAccountIds": ABSENT},
        other_account={"allowedAccountIds": json.dumps(["333333333333"])},
        two_accounts={"allowedAccountIds": json.dumps(["222222222222", "333333333333"])},
        keys={"accessKey": "AKIA", "secretKey": "secret"},
    ),
    case(
        accounts.provider,
        accounts.AWS,
        {"accessKey": "placeholder", "secretKey": "placeholder"},
        keys={"accessKey": "AKIA"},
    ),
    case(
        accounts.tags,
        accounts.AWS,
        _GOOD,
        none={"defaultTags": ABSENT},
        empty={"defaultTags": json.dumps({"tags": {}})},
    ),
    case(
        plaintext.keys,
        _MAP,
        {"data": {"ca.crt": "-----BEGIN CERTIFICATE-----"}},
        pem={("data", "tls.key"): _PEM},
        base64={("data", "tls.key"): _EC},
    ),
    case(
        plaintext.keys,
        "kubernetes:core/v1:Secret",
        {"data": {"tls.key": _EC}, "stringData": {"other.key": _PEM}},
        label={("metadata", "annotations", "key"): _PEM},
    ),
    Case(
        plaintext.keys,
        (resource("kubernetes:core/v1:Secret", {"data": {"tls.key": _EC}}, plain={"data": None}),),
        {
            "not secret": (
                resource(
                    "kubernetes:core/v1:Secret",
                    {"data": {"tls.key": _EC}},
                    plain={"data": {"tls.key": _EC}},
                ),
            )
        },
    ),
    case(
        plaintext.keys,
        "aws:ssm/parameter:Parameter",
        {"value": "hello"},
        pem={"value": _PEM},
    ),
]
