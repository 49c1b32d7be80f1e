"""The image's registry: pulled from by the silos' nodes, and changed by nobody."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.keys import Key
from infra.registry import Registry, image_in

from . import aws, iam
from .recording import Recording, record

HOME, FAR = aws.REGION, "us-east-1"
OWN, NORTH, SOUTH = (aws.IDS[party] for party in ("aggregator", "north", "south"))
NAMES = {HOME: "aggregator-images", FAR: f"aggregator-images-{FAR}"}
PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")


def made(
    pullers: dict[str, str] | None = None,
    regions: tuple[str, ...] = (HOME, FAR),
    *,
    protect: bool = False,
    preview: bool = False,
) -> Recording:
    """A registry for silos of two Regions."""
    silos = {"south": SOUTH, "north": NORTH} if pullers is None else pullers

    def program() -> None:
        account, opts = aws.account("aggregator"), pulumi.ResourceOptions()
        key = Key("data", account, opts, protect=protect)
        registry = Registry(account, key, silos, regions, opts, protect=protect)
        pulumi.export("repository", registry.repository)

    return record({}, program=program, preview=preview)


@pytest.fixture(scope="module")
def registry() -> Recording:
    """That one."""
    return made()


BOTH = pytest.mark.parametrize("region", [HOME, FAR])


def of(registry: Recording, kind: str, region: str) -> dict[str, Any]:
    """The properties of what is there of a kind in a Region."""
    properties = registry.of(f":{kind}", NAMES[region]).properties
    assert properties.get("region", HOME) == region
    return properties


@BOTH
def test_what_a_tag_names_never_changes(registry: Recording, region: str):
    repository = of(registry, "Repository", region)
    assert repository["name"] == "heart/fl-silos"
    assert repository["imageTagMutability"] == "IMMUTABLE"


@BOTH
def test_images_are_encrypted_with_a_key_of_their_region(registry: Recording, region: str):
    (encryption,) = of(registry, "Repository", region)["encryptionConfigurations"]
    name = {HOME: "aggregator-data", FAR: f"aggregator-images-{FAR}"}[region]
    key = registry.of("key:Key", name)
    assert key.properties.get("region", HOME) == region
    assert encryption["encryptionType"] == "KMS"
    assert encryption["kmsKey"].endswith(f"key/{name}")


@BOTH
def test_images_are_scanned_when_pushed(registry: Recording, region: str):
    assert of(registry, "Repository", region)["imageScanningConfiguration"] == {"scanOnPush": True}


def test_pythons_packages_are_scanned_too_and_again(registry: Recording):
    scanning = registry.of(":RegistryScanningConfiguration").properties
    assert scanning["scanType"] == "ENHANCED"
    (rule,) = scanning["rules"]
    assert rule["scanFrequency"] == "CONTINUOUS_SCAN"
    assert rule["repositoryFilters"] == [{"filter": "heart/fl-silos", "filterType": "WILDCARD"}]


@BOTH
def test_images_without_a_tag_go_after_two_weeks(registry: Recording, region: str):
    (rule,) = json.loads(of(registry, "LifecyclePolicy", region)["policy"])["rules"]
    assert rule["action"] == {"type": "expire"}
    assert rule["selection"] == {
        "tagStatus": "untagged",
        "countType": "sinceImagePushed",
        "countUnit": "days",
        "countNumber": 14,
    }


def pulled(registry: Recording, region: str, account: str, role: str, action: str) -> str:
    """What the repository's policy says of a role."""
    policy = of(registry, "RepositoryPolicy", region)["policy"]
    context = {"aws:PrincipalArn": f"arn:aws:iam::{account}:{role}"}
    root = f"arn:aws:iam::{account}:root"
    return iam.decision(policy, action, context=context, principal=root)


@BOTH
def test_the_silos_nodes_may_pull(registry: Recording, region: str):
    for action in PULL:
        for account in (NORTH, SOUTH):
            assert pulled(registry, region, account, "role/fl-silos/node", action) == "Allow"


@BOTH
def test_nobody_else_may_and_nobody_may_push(registry: Recording, region: str):
    node = "role/fl-silos/node"
    for action in PULL:
        assert pulled(registry, region, NORTH, "role/doctor", action) == ""
        assert pulled(registry, region, NORTH, "user/doctor", action) == ""
        assert pulled(registry, region, "999999999999", node, action) == ""
    for action in ("ecr:PutImage", "ecr:InitiateLayerUpload", "ecr:BatchDeleteImage"):
        assert pulled(registry, region, NORTH, node, action) == ""


def test_accounts_are_named_once_and_in_order():
    pullers = {"c": SOUTH, "a": NORTH, "b": SOUTH, "home": OWN}
    policy = of(made(pullers), "RepositoryPolicy", HOME)["policy"]
    (statement,) = iam.statements(policy).values()
    assert statement["Principal"] == {
        "AWS": [f"arn:aws:iam::{account}:root" for account in (NORTH, SOUTH)]
    }


@pytest.mark.parametrize("pullers", [{}, {"home": OWN}])
def test_without_silos_elsewhere_nobody_is_let_in(pullers: dict[str, str]):
    assert made(pullers).all(":RepositoryPolicy") == []


def test_images_are_copied_where_silos_are(registry: Recording):
    replication = registry.of(":ReplicationConfiguration")
    (rule,) = replication.properties["replicationConfiguration"]["rules"]
    assert rule["destinations"] == [{"region": FAR, "registryId": OWN}]
    filters = [{"filter": "heart/fl-silos", "filterType": "PREFIX_MATCH"}]
    assert rule["repositoryFilters"] == filters
    # ECR makes what is not there, without key and policy.
    assert registry.of(":Repository", NAMES[FAR]).urn in replication.dependencies


@pytest.mark.parametrize("regions", [(), (HOME,), (HOME, HOME)])
def test_in_one_region_nothing_is_copied(regions: tuple[str, ...]):
    recording = made(regions=regions)
    assert recording.all(":ReplicationConfiguration") == []
    assert len(recording.all(":Repository")) == 1


def test_a_region_has_one_copy():
    recording = made(regions=(FAR, "eu-west-1", FAR, HOME))
    assert len(recording.all(":Repository")) == 3
    (rule,) = recording.of(":ReplicationConfiguration").properties["replicationConfiguration"][
        "rules"
    ]
    assert [one["region"] for one in rule["destinations"]] == ["eu-west-1", FAR]


def test_the_output_is_the_repository_at_home(registry: Recording):
    expected = f"000000000000.dkr.ecr.{HOME}.amazonaws.com/aggregator-images"
    assert registry.outputs["repository"] == expected


@BOTH
@pytest.mark.parametrize("protect", [True, False])
def test_a_protected_repository_does_not_go_with_its_images(region: str, protect: bool):
    recording = made(protect=protect)
    assert of(recording, "Repository", region)["forceDelete"] is not protect
    assert recording.of(":Repository", NAMES[region]).protect is protect


@pytest.mark.parametrize("preview", [False, True])
def test_all_is_made_by_the_aggregators_provider(preview: bool):
    made_here = [one for one in made(preview=preview).resources.values() if "aws:ecr" in one.kind]
    assert len(made_here) == 8
    assert all(one.provider.endswith("::aggregator-aws") for one in made_here)


ACCOUNT = st.integers(0, 10**12 - 1).map(lambda number: f"{number:012}")
REGION = st.sampled_from(["eu-central-1", "us-east-1", "ap-southeast-3", "us-gov-west-1"])
NAME = st.text("abc/-._", min_size=1).map(lambda name: f"a{name}")
REST = st.builds(str.__add__, NAME, st.sampled_from(["", ":1.0", "@sha256:" + "0" * 64]))


@given(account=ACCOUNT, one=REGION, two=REGION, rest=REST)
def test_an_image_is_the_same_in_another_region(account: str, one: str, two: str, rest: str):
    def image(region: str) -> str:
        return f"{account}.dkr.ecr.{region}.amazonaws.com/{rest}"

    assert image_in(image(one), two) == image(two)
    assert image_in(image_in(image(one), two), one) == image(one)
    assert image_in(image(one), one) == image(one)


@pytest.mark.parametrize(
    "image",
    [
        "localhost/fl-silos:dev",
        "registry.example/fl-silos@sha256:" + "0" * 64,
        "public.ecr.aws/fl/silos:1",
        "111122223333.dkr.ecr.eu-central-1.amazonaws.com.example/fl:1",
        "registry.example/111122223333.dkr.ecr.eu-central-1.amazonaws.com/fl:1",
        "1111.dkr.ecr.eu-central-1.amazonaws.com/fl:1",
        "111122223333.dkr.ecr.eu-central-1.amazonaws.com/",
    ],
)
def test_an_image_of_another_registry_stays_as_it_is(image: str):
    assert image_in(image, "us-east-1") == image
