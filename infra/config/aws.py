"""The stack's file where each party has an AWS account of its own."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fl_core.fields import Strict
from infra.config import placeholders, values
from infra.config.common import (
    AGGREGATOR,
    Aggregator,
    ConfigError,
    Federation,
    Image,
    SiloName,
    Slots,
)
from infra.config.keys import where

DEPLOYER = "fl-silos/deployer"
"""The role that infra/bootstrap makes in each account, with its path."""
KUBERNETES = "1.36"
"""In standard support until August 2027; EKS raises what is older by itself."""
SERVICE_CIDR = "172.20.0.0/16"
"""Of Kubernetes' services, in every cluster."""
_ACCOUNT = re.compile(r"\d{12}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_ZONE = re.compile(r"[a-z]{3,4}\d-az\d")
_ROLE = re.compile(r"arn:aws:iam::(\d{12}):role/[\w+=,.@/-]{1,512}", re.ASCII)
_KEY = re.compile(r"arn:aws:kms:([a-z0-9-]+):(\d{12}):key/[\w-]{1,128}", re.ASCII)
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
_INSTANCE = re.compile(r"[a-z0-9-]{2,20}\.[a-z0-9-]{2,20}")
_SERVICE = re.compile(r"com\.amazonaws\.vpce\.[a-z0-9-]+\.vpce-svc-[0-9a-f]{8,32}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_S3_PREFIX = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\s]+)*/?")
_STACK = re.compile(r"[\w.-]+/[\w.-]+/[\w.-]+", re.ASCII)
_TAG = re.compile(r"[\w .:/=+@-]{1,128}")
_WIDEST_API = 16
_SMALLEST_VPC, _LARGEST_VPC = 22, 16


def _like(pattern: re.Pattern[str], example: str):
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be such as {example}")
        return text

    return AfterValidator(check)


def _is_vpc(text: str) -> str:
    network = _network(text)
    if not network.is_private or not _LARGEST_VPC <= network.prefixlen <= _SMALLEST_VPC:
        raise ValueError(f"must be a private network of /{_LARGEST_VPC} to /{_SMALLEST_VPC}")
    if network.overlaps(_network(SERVICE_CIDR)):
        raise ValueError(f"must not overlap {SERVICE_CIDR}, which Kubernetes' services have")
    return text


def _is_api(text: str) -> str:
    network = _network(text)
    if network.prefixlen < _WIDEST_API:
        raise ValueError(
            f"is open to {network.num_addresses} addresses: name your own, /{_WIDEST_API} at widest"
        )
    return text


def _network(text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"must be an IPv4 network such as 10.1.0.0/16: {error}") from error


def _is_data(text: str) -> str:
    if not _S3_PREFIX.fullmatch(text) or text.endswith(".csv"):
        raise ValueError("must be s3://BUCKET/PREFIX; without it, the stack makes a bucket")
    return text


def _is_tag(key: str) -> str:
    if not _TAG.fullmatch(key) or key.startswith(("aws:", "fl-silos:")):
        raise ValueError("must be a tag's key, and none that begins with aws: or fl-silos:")
    return key


AccountId = Annotated[str, _like(_ACCOUNT, "'111122223333', 12 digits in quotes")]
Region = Annotated[str, _like(_REGION, "eu-central-1")]
Zone = Annotated[str, _like(_ZONE, "euc1-az1, a zone's ID (not its name)")]
Cidr = Annotated[str, AfterValidator(_is_vpc)]
ApiCidr = Annotated[str, AfterValidator(_is_api)]
Email = Annotated[str, _like(_EMAIL, "on-call@hospital.example")]
TagKey = Annotated[str, AfterValidator(_is_tag)]
TagValue = Annotated[str, _like(_TAG, "it department; letters, digits, spaces and _.:/=+-@")]
Pem = Annotated[str, Field(min_length=64, max_length=20_000)]
StackName = Annotated[str, _like(_STACK, "ORGANIZATION/fl-silos/STACK")]


class Nodes(Strict):
    """The machines that a party's pods run on; EKS Auto Mode chooses what is left open."""

    instance_types: tuple[Annotated[str, _like(_INSTANCE, "m7i.large")], ...] = Field(
        default=(), max_length=20, examples=[["m7i.large"]]
    )
    gpu: int = Field(default=0, ge=0, le=16, examples=[1])


class Api(Strict):
    """Who reaches the cluster's API: without ``cidrs`` nobody from outside its VPC."""

    cidrs: tuple[ApiCidr, ...] = Field(default=(), max_length=40, examples=[["203.0.113.7/32"]])
    tunnel: int | None = Field(default=None, ge=1024, le=65535, examples=[8443])


class Party(Strict):
    """A party by its account."""

    account: AccountId = Field(examples=["111122223333"])
    region: Region = Field(examples=["eu-central-1"])


class Site(Party):
    """A party that this stack makes: its account, its network, its cluster."""

    role: Annotated[str, _like(_ROLE, "arn:aws:iam::111122223333:role/NAME")] | None = Field(
        default=None, examples=["arn:aws:iam::111122223333:role/fl-silos/deployer"]
    )
    external_id: Annotated[str, _like(_EXTERNAL_ID, "7c0f2f6e, what infra/bootstrap was given")] = (
        Field(examples=["7c0f2f6e"])
    )
    cidr: Cidr = Field(examples=["10.1.0.0/16"])
    zones: tuple[Zone, ...] = Field(min_length=2, max_length=3, examples=[["euc1-az1", "euc1-az2"]])
    nodes: Nodes = Nodes()
    api: Api = Api()
    internet: bool = False

    @property
    def deployer(self) -> str:
        """ARN of the role by which everything in the account is made."""
        return self.role or f"arn:aws:iam::{self.account}:role/{DEPLOYER}"


class AwsAggregator(Site, Aggregator):
    """The aggregator, made by this stack."""


class AwsSilo(Site):
    """A silo, made by this stack, and where its data lies."""

    name: SiloName = Field(examples=["north"])
    data: Annotated[str, AfterValidator(_is_data)] | None = Field(
        default=None, examples=["s3://north-data/heart"]
    )
    data_key: Annotated[str, _like(_KEY, "arn:aws:kms:REGION:ACCOUNT:key/ID")] | None = Field(
        default=None, examples=["arn:aws:kms:eu-central-1:111122223333:key/ID"]
    )


class Guest(Party):
    """A silo that its own stack makes, in the aggregator's stack."""

    name: SiloName = Field(examples=["north"])
    request: Pem | None = Field(default=None, examples=["-----BEGIN CERTIFICATE REQUEST-----..."])
    stack: StackName | None = Field(default=None, examples=["hospital/fl-silos/north"])


class Host(Party, Slots):
    """The aggregator that its own stack makes, in a silo's stack."""

    service: Annotated[str, _like(_SERVICE, "com.amazonaws.vpce.REGION.vpce-svc-ID")] | None = (
        Field(default=None, examples=["com.amazonaws.vpce.eu-central-1.vpce-svc-0123456789abcdef0"])
    )
    authority: Pem | None = Field(default=None, examples=["-----BEGIN CERTIFICATE-----..."])
    certificate: Pem | None = Field(default=None, examples=["-----BEGIN CERTIFICATE-----..."])
    stack: StackName | None = Field(default=None, examples=["consortium/fl-silos/aggregator"])


class Alerts(Strict):
    """Who is told, and from what monthly cost (in USD, a party's account) on."""

    emails: tuple[Email, ...] = Field(
        default=(), max_length=10, examples=[["on-call@hospital.example"]]
    )
    monthly_budget: int | None = Field(default=None, ge=1, le=10_000_000, examples=[500])


class AwsFederation(Federation):
    """What the three kinds of stack on AWS have in common."""

    image: Image | None = Field(
        default=None, examples=["111122223333.dkr.ecr.eu-central-1.amazonaws.com/fl@sha256:DIGEST"]
    )
    tags: dict[TagKey, TagValue] = Field(
        default_factory=dict, max_length=40, examples=[{"owner": "it"}]
    )
    protect: bool = False
    alerts: Alerts = Alerts()
    log_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827] = (
        Field(default=365, examples=[365])
    )
    kubernetes_version: Annotated[str, _like(re.compile(r"1\.\d\d"), KUBERNETES)] = Field(
        default=KUBERNETES, examples=[KUBERNETES]
    )
    tracking: bool = True


class WithRun(AwsFederation):
    """Where the aggregator is made, a run is proposed."""

    run: dict[str, Any] | None = Field(default=None, examples=[{"model": {"name": "mlp"}}])


class WholeConfig(WithRun):
    """All parties in one stack."""

    party: Literal["all"] = "all"
    aggregator: AwsAggregator = Field(examples=[{"account": "111122223333"}])
    silos: tuple[AwsSilo, ...] = Field(min_length=1, max_length=1024, examples=[[]])

    @property
    def host(self) -> AwsAggregator:
        """The aggregator."""
        return self.aggregator


class AggregatorConfig(WithRun):
    """The aggregator alone; the silos have stacks of their own."""

    party: Literal["aggregator"] = "aggregator"
    aggregator: AwsAggregator = Field(examples=[{"account": "111122223333"}])
    silos: tuple[Guest, ...] = Field(default=(), max_length=1024, examples=[[]])

    @property
    def host(self) -> AwsAggregator:
        """The aggregator."""
        return self.aggregator


class SiloConfig(AwsFederation):
    """One silo alone; the aggregator has a stack of its own."""

    party: Literal["silo"] = "silo"
    aggregator: Host = Field(examples=[{"account": "111122223333", "region": "eu-central-1"}])
    silo: AwsSilo = Field(examples=[{"name": "north"}])

    @property
    def host(self) -> Host:
        """The aggregator."""
        return self.aggregator


AwsConfig = WholeConfig | AggregatorConfig | SiloConfig
KINDS: Mapping[str, type[AwsConfig]] = {
    "all": WholeConfig,
    "aggregator": AggregatorConfig,
    "silo": SiloConfig,
}


def load(party: str) -> AwsConfig:
    """The stack's configuration for ``party``. Raises ConfigError, naming the key."""
    kind = KINDS.get(party)
    if kind is None:
        raise ConfigError(
            f"{where(['party'])}: must be all, aggregator or silo (value {party!r:.80})",
            "all makes every party from here; the others make one of them in its own account",
        )
    config = values.checked(placeholders.filled(values.given(kind)), kind)
    silos: Sequence[AwsSilo | Guest] = (
        (config.silo,) if isinstance(config, SiloConfig) else (config.silos)
    )
    if isinstance(config, SiloConfig) and config.exclude:
        raise ConfigError(
            f"{where(['exclude'])}: whom the coordinator turns away, the aggregator's stack says",
            "take it out here",
        )
    config.check([silo.name for silo in silos])
    if config.image is not None and "@sha256:" not in config.image:
        raise ConfigError(
            f"{where(['image'])}: {config.image!r} has no digest, and what a tag names may "
            "change under a running federation",
            "pin it: IMAGE@sha256:DIGEST",
        )
    if config.alerts.monthly_budget and not config.alerts.emails:
        raise ConfigError(
            f"{where(['alerts', 'monthly_budget'])}: a budget tells nobody without an address",
            "name one in alerts.emails",
        )
    _check_accounts(config, silos)
    _check_tunnels(config)
    for key, site in sites(config):
        _check_site(key, site, config)
    return config


def sites(config: AwsConfig) -> list[tuple[list[str | int], AwsAggregator | AwsSilo]]:
    """The parties that the stack makes, each with its key."""
    found: list[tuple[list[str | int], AwsAggregator | AwsSilo]] = []
    if isinstance(config, WholeConfig | AggregatorConfig):
        found.append((["aggregator"], config.aggregator))
    if isinstance(config, WholeConfig):
        found += [(["silos", i], silo) for i, silo in enumerate(config.silos)]
    if isinstance(config, SiloConfig):
        found.append((["silo"], config.silo))
    return found


def _check_accounts(config: AwsConfig, silos: Sequence[AwsSilo | Guest]) -> None:
    seen = {config.aggregator.account: AGGREGATOR}
    for i, silo in enumerate(silos):
        key = ["silo"] if isinstance(config, SiloConfig) else ["silos", i]
        if silo.name.startswith(f"{AGGREGATOR}-"):
            raise ConfigError(
                f"{where([*key, 'name'])}: {silo.name!r} begins as the names of what is the "
                "aggregator's",
                "choose another",
            )
        if silo.account in seen:
            raise ConfigError(
                f"{where([*key, 'account'])}: {silo.account!r} is the account of "
                f"{seen[silo.account]} as well",
                "give each party an account of its own: it is what keeps their data apart",
            )
        seen[silo.account] = silo.name


def _check_tunnels(config: AwsConfig) -> None:
    seen: dict[int, str] = {}
    for key, site in sites(config):
        port = site.api.tunnel
        if port is None:
            continue
        if port in seen:
            raise ConfigError(
                f"{where([*key, 'api', 'tunnel'])}: {port} is the port of {seen[port]} as well",
                "give each tunnel a port of its own, or one cluster is taken for the other",
            )
        seen[port] = where(key)


def _check_site(key: Sequence[str | int], site: AwsAggregator | AwsSilo, config: AwsConfig) -> None:
    match = _ROLE.fullmatch(site.deployer)
    if match is not None and match[1] != site.account:
        raise ConfigError(
            f"{where([*key, 'role'])}: is a role of account {match[1]}, and the party's is "
            f"{site.account}",
            "correct one of the two",
        )
    if len(set(site.zones)) < len(site.zones):
        raise ConfigError(f"{where([*key, 'zones'])}: a zone stands twice", "name 2 or 3 zones")
    if site.api.cidrs and site.api.tunnel:
        raise ConfigError(
            f"{where([*key, 'api'])}: has both cidrs and tunnel",
            "a tunnel is for a private endpoint: keep one of the two",
        )
    if isinstance(site, AwsSilo):
        if site.data_key and not site.data:
            raise ConfigError(
                f"{where([*key, 'data_key'])}: is the key of a bucket that is there already",
                "name that bucket with data, or leave both out and the stack makes bucket and key",
            )
        match = _KEY.fullmatch(site.data_key or "")
        if match is not None and (match[1], match[2]) != (site.region, site.account):
            raise ConfigError(
                f"{where([*key, 'data_key'])}: is a key in {match[1]} of account {match[2]}",
                f"bucket and key must be in {site.region} of the silo's own account, "
                f"{site.account}: its network leads to no other",
            )
        host = config.host
        if (
            isinstance(host, AwsAggregator)
            and host.region == site.region
            and not set(site.zones) <= set(host.zones)
        ):
            raise ConfigError(
                f"{where([*key, 'zones'])}: {sorted(set(site.zones) - set(host.zones))[0]!r} is "
                "none of the aggregator's zones, and PrivateLink connects within a zone",
                f"choose among {', '.join(host.zones)}, or add the zone to the aggregator's",
            )
