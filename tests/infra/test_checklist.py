"""What whoever reviews a federation on AWS looks for, over each stack as a whole.

The components have tests of their own, and the policy pack judges each resource by itself. Here it
is asked whether every party has what it should, and whether the parts fit: whose role, whose key,
whose cluster, whose bucket.
"""

from __future__ import annotations

import base64
import copy
import itertools
import json
from collections.abc import Sequence
from typing import Any

import kubernetes_validate
import pytest

from fl_core.tracking import experiments
from fl_core.transport.identity import party_of
from infra.endpoints import SERVICES
from infra.names import coordinator
from infra.policy.pack import RULES

from . import iam, stacks
from .recording import Record, Recording, Secret, hidden, opened, record

KUBERNETES = "1.36"
AGGREGATOR = "aggregator"
BY_RULES: dict[str, Sequence[str]] = {
    "endpoint": ("eks-private-endpoint", "eks-no-open-endpoint"),
    "authentication": ("eks-api-authentication",),
    "creator admin": ("eks-no-creator-admin",),
    "pod credentials": ("iam-trust-confined", "iam-role-boundary"),
    "secrets": ("eks-secrets-encrypted", "key-rotated", "pod-secrets-as-files"),
    "network policy": ("network-policy-narrow",),
    "pod security": (
        "namespace-restricted",
        "pod-no-api-token",
        "pod-no-privileges",
        "pod-non-root",
        "pod-read-only-root",
        "pod-seccomp",
    ),
    "logs": ("eks-control-plane-logs", "logs-kept-and-encrypted"),
    "nodes": ("eks-auto-mode", "eks-version-pinned"),
    "supply chain": ("pod-image-digest",),
    "least privilege": ("iam-no-wildcard-actions", "iam-no-wildcard-resources"),
    "accounts": ("account-provider-confined", "account-default-tags"),
}
"""What reviewers look for, and the pack's rules that say so."""
CALLED = (
    "ecr.api",
    "ecr.dkr",
    "eks-auth",
    "kms",
    "logs",
    "sagemaker.api",
    "sagemaker.metrics",
    "sts",
)
"""Services of AWS that the pods cannot do without; S3 has a way of its own."""
SPECIAL = {"TargetGroupBinding"}
"""Kinds that Auto Mode brings, of which the validation knows nothing."""


@pytest.fixture
def parties(stack: str) -> dict[str, dict[str, Any]]:
    """Each party's part of the stack's file, by name."""
    config = stacks.filled(stack)
    return {AGGREGATOR: config["aggregator"]} | {one["name"]: one for one in config["silos"]}


def _theirs(made: Recording, party: str) -> list[Record]:
    """What is in a party's account and on its cluster."""
    own = {f"{party}-aws", f"{party}-kubernetes"}
    found = [one for one in made.resources.values() if one.provider.rpartition("::")[2] in own]
    assert found
    return found


def _kind(resources: Sequence[Record], kind: str) -> list[dict[str, Any]]:
    """The properties of all resources of a kind, in order of their names."""
    found = sorted((one for one in resources if one.kind.endswith(kind)), key=lambda one: one.name)
    return [one.properties for one in found]


def _only(resources: Sequence[Record], kind: str) -> dict[str, Any]:
    (found,) = _kind(resources, kind)
    return found


def _ground(made: Recording, one: Record) -> str:
    """The party below whose component a resource is; empty for what no party has."""
    while one.parent in made.resources:
        one = made.resources[one.parent]
        if one.kind == "fl-silos:infra:Ground":
            return one.name
    return ""


# Whose


@pytest.mark.parametrize("row", BY_RULES)
def test_a_rule_has_something_to_judge_at_each_party(made: Recording, row: str, parties: Any):
    """A rule about what a party does not have would be kept by nothing."""
    rules = {rule.name: rule for rule in RULES}
    for name in BY_RULES[row]:
        for party in parties:
            theirs = [*_theirs(made, party), made.of("providers:aws", f"{party}-aws")]
            assert any(rules[name].concerns(one.kind) for one in theirs), f"{name}: {party}"


def test_every_resource_has_one_of_the_stacks_own_providers(made: Recording, parties: Any):
    names = {"tls", *(f"{party}-{where}" for party in parties for where in ("aws", "kubernetes"))}
    providers = [one for one in made.resources.values() if ":providers:" in one.kind]
    assert {one.name for one in providers} == names
    known = {one.urn: one.kind.rpartition(":")[2] for one in providers}
    for one in made.resources.values():
        if one.custom and one.urn not in known:
            assert known.get(one.provider) == one.kind.partition(":")[0], one.short


def test_what_is_a_partys_is_in_its_account_or_on_its_cluster(made: Recording):
    for one in made.resources.values():
        if one.custom and one.kind.startswith(("aws:", "kubernetes:")):
            party = _ground(made, one)
            assert one.provider.rpartition("::")[2] in (f"{party}-aws", f"{party}-kubernetes")


def test_everything_is_tagged_with_whose_it_is(made: Recording, stack: str, parties: Any):
    for party in parties:
        tags = made.of("providers:aws", f"{party}-aws").properties["defaultTags"]
        assert json.loads(tags) == {
            "tags": {
                "environment": stack,
                "fl-silos:federation": "heart",
                "fl-silos:party": party,
                "fl-silos:stack": stack,
            }
        }


def test_all_that_a_party_has_is_protected_or_nothing(made: Recording, stack: str):
    protected = stack == "prod"
    for one in made.resources.values():
        # Certificates and their keys are renewed by being replaced, which protection forbids.
        if one.kind.startswith("tls:"):
            continue
        if _ground(made, one) or one.kind == "fl-silos:infra:Ground":
            assert one.protect is protected, one.short
    for one in made.all(":LocallySignedCert"):
        assert one.protect is False, one.short
    # Without the authority's key, nobody could be let in any more.
    authority = {one.name: one for one in made.all(":PrivateKey")}["authority"]
    assert authority.protect is protected
    for one in made.all("eks/cluster:Cluster"):
        assert one.properties["deletionProtection"] is protected
    for one in made.all("s3/bucket:Bucket"):
        assert one.properties["forceDestroy"] is not protected
    for one in made.all("kms/key:Key"):
        assert one.properties["deletionWindowInDays"] == (30 if protected else 7)


# Network


def test_each_party_has_a_private_network_in_its_own_zones(made: Recording, parties: Any):
    for party, site in parties.items():
        theirs = _theirs(made, party)
        assert _only(theirs, "ec2/vpc:Vpc")["cidrBlock"] == site["cidr"]
        subnets = _kind(theirs, ":Subnet")
        assert [one["availabilityZoneId"] for one in subnets] == site["zones"]
        assert _only(theirs, ":FlowLog")["vpcId"] == f"{party}-vpc-id"
        for way_out in ("InternetGateway", "NatGateway", ":Route", "VpcPeeringConnection"):
            assert _kind(theirs, way_out) == []


def test_each_network_leads_to_what_its_pods_call(made: Recording, parties: Any):
    assert set(CALLED) <= set(SERVICES)
    for party, site in parties.items():
        endpoints = _kind(_theirs(made, party), ":VpcEndpoint")
        found = {
            one["serviceName"]: one["vpcEndpointType"]
            for one in endpoints
            if not one["serviceName"].startswith("com.amazonaws.vpce.")
        }
        prefix = f"com.amazonaws.{site['region']}."
        assert found.pop(f"{prefix}s3") == "Gateway"
        assert {f"{prefix}{service}" for service in CALLED} <= found.keys()
        assert set(found.values()) == {"Interface"}
        assert all(name.startswith(prefix) for name in found)


@pytest.mark.parametrize("way", ["ingress", "egress"])
def test_a_policy_opens_no_way_but_to_the_coordinator_names_and_aws(
    made: Recording, parties: Any, way: str
):
    slots = 1 + parties[AGGREGATOR].get("slots", 1)
    for party, site in parties.items():
        policies = {
            one["metadata"]["name"]: one["spec"]
            for one in _kind(_theirs(made, party), ":NetworkPolicy")
        }
        service = "coordinator" if party == AGGREGATOR else "agent"
        assert policies.keys() == {"default-deny", service}
        closed = policies["default-deny"]
        assert closed["podSelector"] == {"matchLabels": {}}
        assert (closed["ingress"], closed["egress"]) == ([], [])
        ports = [{"protocol": "TCP", "port": 8440, "endPort": 8439 + slots}]
        subnets = [one["cidrBlock"] for one in _kind(_theirs(made, party), ":Subnet")]
        rules = policies[service][way]
        if way == "ingress":
            expected = [(subnets, ports)] if party == AGGREGATOR else []
            assert [(_cidrs(one["from"]), one["ports"]) for one in rules] == expected
            continue
        given = {json.dumps(one["ports"], sort_keys=True): one.get("to") for one in rules}
        if party != AGGREGATOR:
            assert _cidrs(given.pop(json.dumps(ports, sort_keys=True))) == subnets
        names = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
        asked = _cidrs(given.pop(json.dumps(names)))
        assert asked == ["172.20.0.0/16", "169.254.0.0/16", site["cidr"]]
        # Where this leads to is up to the network, which has no other way than to AWS.
        assert given.pop(json.dumps([{"port": 443, "protocol": "TCP"}])) is None
        credentials = given.pop(json.dumps([{"port": 80, "protocol": "TCP"}]))
        assert _cidrs(credentials) == ["169.254.170.23/32", "fd00:ec2::23/128"]
        assert given == {}


def _cidrs(peers: list[dict[str, Any]]) -> list[str]:
    return [peer["ipBlock"]["cidr"] for peer in peers]


# Cluster


def test_each_party_has_a_cluster_under_its_own_key(made: Recording, parties: Any):
    for party in parties:
        theirs = _theirs(made, party)
        cluster = _only(theirs, "eks/cluster:Cluster")
        key = cluster["encryptionConfig"]["provider"]["keyArn"]
        assert key.endswith(f":key/{party}-cluster")
        assert cluster["computeConfig"]["nodeRoleArn"].endswith(f"/{party}-node")
        assert cluster["roleArn"] == f"{party}-cluster"
        assert all(subnet.startswith(f"{party}-private-") for subnet in _subnets(cluster))
        assert cluster["version"] == KUBERNETES


def _subnets(cluster: dict[str, Any]) -> list[str]:
    return cluster["vpcConfig"]["subnetIds"]


def test_an_api_is_open_to_those_whom_the_file_names_and_to_nobody_else(
    made: Recording, parties: Any
):
    for party, site in parties.items():
        network = _only(_theirs(made, party), "eks/cluster:Cluster")["vpcConfig"]
        cidrs = site.get("api", {}).get("cidrs", [])
        assert network["endpointPrivateAccess"] is True
        assert network["endpointPublicAccess"] is bool(cidrs)
        assert network.get("publicAccessCidrs", []) == cidrs


def test_one_role_of_the_partys_account_is_let_into_its_cluster(made: Recording, parties: Any):
    for party, site in parties.items():
        role = f"arn:aws:iam::{site['account']}:role/fl-silos/deployer-kubernetes"
        given = made.of("eks:index:Cluster", f"{party}-eks").properties
        assert [one["principalArn"] for one in given["accessEntries"].values()] == [role]
        provider = made.of("providers:kubernetes", f"{party}-kubernetes").properties
        config = json.loads(provider["kubeconfig"])
        (user,) = config["users"]
        arguments = user["user"]["exec"]["args"]
        named = dict(itertools.pairwise(arguments))
        assert named["--role"] == role
        assert named["--cluster-name"] == given["name"]
        (cluster,) = config["clusters"]
        local = f"https://localhost:{site['api'].get('tunnel')}"
        address = cluster["cluster"]["server"]
        assert address == local if "tunnel" in site["api"] else party in address


def test_the_only_machines_are_the_tunnels_hosts(made: Recording, parties: Any):
    """Nodes are Auto Mode's. All others ask for a token, one hop away."""
    tunnels = {f"{party}-tunnel" for party, site in parties.items() if "tunnel" in site["api"]}
    assert {one.name for one in made.all(":Instance")} == tunnels
    assert {one.name for one in made.all(":LaunchTemplate")} == tunnels
    for kind in ("NodeGroup", "NodeGroupV2", "FargateProfile", ":Group", ":SpotFleetRequest"):
        assert made.all(kind) == []
    for one in made.all(":LaunchTemplate"):
        options = one.properties["metadataOptions"]
        assert (options["httpTokens"], options["httpPutResponseHopLimit"]) == ("required", 1)
    for one in made.all(":Instance"):
        assert "metadataOptions" not in one.properties
        assert one.properties["launchTemplate"]["id"] == f"{one.name}-id"


# Pods


def test_manifests_are_valid(made: Recording):
    kinds: set[str] = set()
    for manifest in made.manifests:
        if manifest["kind"] in SPECIAL:
            kinds.add(manifest["kind"])
        else:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    assert kinds == SPECIAL


def test_every_namespace_refuses_what_is_not_restricted(made: Recording, parties: Any):
    for party in parties:
        metadata = _only(_theirs(made, party), ":Namespace")["metadata"]
        assert metadata["name"] == f"heart-{party}"
        for mode in ("enforce", "audit", "warn"):
            assert metadata["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_a_party_runs_one_service_that_no_drained_node_ends(made: Recording, parties: Any):
    """Auto Mode replaces each node within 21 days, whatever runs on it."""
    for party in parties:
        theirs = _theirs(made, party)
        service = "coordinator" if party == AGGREGATOR else "agent"
        workloads = _kind(theirs, ":StatefulSet") + _kind(theirs, ":Deployment")
        assert [one["metadata"]["name"] for one in workloads] == [service]
        assert workloads[0]["spec"]["replicas"] == 1
        budget = _only(theirs, ":PodDisruptionBudget")
        assert budget["metadata"]["namespace"] == workloads[0]["metadata"]["namespace"]
        assert budget["spec"]["minAvailable"] == 1
        labels = workloads[0]["spec"]["template"]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_queue_history_and_checkpoints_outlive_the_coordinators_node(made: Recording, parties: Any):
    spec = _only(_theirs(made, AGGREGATOR), ":StatefulSet")["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    size = parties[AGGREGATOR].get("storage", {}).get("size", "4Gi")
    assert claim["spec"]["resources"]["requests"]["storage"] == size
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    (container,) = spec["template"]["spec"]["containers"]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    settings = made.of("v1:ConfigMap", "aggregator-coordinator").properties["data"]
    assert mounts[claim["metadata"]["name"]] == settings["FL_FOLDER"]
    assert settings["FL_SLOTS"] == str(parties[AGGREGATOR].get("slots", 1))


def test_the_same_image_is_pulled_in_each_region(made: Recording, parties: Any):
    repositories = {
        one.properties.get("region", parties[AGGREGATOR]["region"]): one
        for one in made.all("ecr/repository:Repository")
    }
    assert repositories.keys() == {site["region"] for site in parties.values()}
    for party, site in parties.items():
        theirs = _theirs(made, party)
        (workload,) = _kind(theirs, ":StatefulSet") + _kind(theirs, ":Deployment")
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        name = repositories[site["region"]].properties["name"]
        registry = f"{parties[AGGREGATOR]['account']}.dkr.ecr.{site['region']}.amazonaws.com"
        assert container["image"] == f"{registry}/{name}@{stacks.DIGEST}"


# Identity and data


def test_a_party_has_its_own_certificate_and_nobody_elses(made: Recording, parties: Any):
    for party in parties:
        request = made.of(":CertRequest", party).properties
        found = party_of(request["uris"])
        assert found is not None
        assert (found.federation, found.name or found.kind) == ("heart", party)
        assert request.get("dnsNames", []) == (
            [coordinator("heart")] if party == AGGREGATOR else []
        )
        secret = _only(_theirs(made, party), ":Secret")
        assert isinstance(secret["data"], Secret)
        files = {name: base64.b64decode(text) for name, text in opened(secret["data"]).items()}
        assert files == {
            "tls.key": f"PKCS8 KEY OF {party}".encode(),
            "tls.crt": f"CERTIFICATE OF {party}".encode(),
            "ca.crt": b"CERTIFICATE OF authority",
        }


def test_nothing_secret_is_in_plain_text(made: Recording):
    for one in made.resources.values():
        shown = repr(hidden(one.properties))
        assert "KEY OF" not in shown, one.short
        assert "external-" not in shown, one.short
    shown = repr(hidden(made.outputs))
    assert "KEY OF" not in shown
    assert "external-" not in shown
    assert opened(made.outputs)["operator"]["tls.key"] == "PKCS8 KEY OF operator"


def test_each_silo_has_a_vault_and_the_aggregator_no_row(made: Recording, parties: Any):
    for party in parties:
        theirs = _theirs(made, party)
        what = "artifacts" if party == AGGREGATOR else "vault"
        buckets = [one["bucket"] for one in _kind(theirs, ":BucketVersioning")]
        assert buckets == [f"{party}-access-logs-0123abc", f"{party}-{what}-0123abc"]
        logging = _only(theirs, ":BucketLogging")
        assert (logging["bucket"], logging["targetBucket"]) == (buckets[1], buckets[0])
        rules = [
            one["rules"][0] for one in _kind(theirs, ":BucketServerSideEncryptionConfiguration")
        ]
        keys = [one["applyServerSideEncryptionByDefault"]["kmsMasterKeyId"] for one in rules]
        assert keys[0] is None  # S3 delivers logs to no bucket under a key of one's own
        assert keys[1].endswith(f":key/{party}-data")
    assert opened(made.outputs)["data"].keys() == parties.keys() - {AGGREGATOR}


def test_a_pods_role_is_that_of_its_service_account(made: Recording, parties: Any):
    for party, site in parties.items():
        theirs = _theirs(made, party)
        service = "coordinator" if party == AGGREGATOR else "agent"
        account = _only(theirs, ":ServiceAccount")["metadata"]
        assert (account["namespace"], account["name"]) == (f"heart-{party}", service)
        cluster = _only(theirs, "eks/cluster:Cluster")["name"]
        roles = {
            (one["clusterName"], one["namespace"], one["serviceAccount"]): one["roleArn"]
            for one in _kind(theirs, ":PodIdentityAssociation")
        }
        assert roles.keys() == {
            (cluster, f"heart-{party}", service),
            (cluster, "amazon-cloudwatch", "cloudwatch-agent"),
        }
        role = roles[cluster, f"heart-{party}", service]
        assert role.endswith(f"/{party}-{service}")
        trust = made.of("iam/role:Role", f"{party}-{service}").properties["assumeRolePolicy"]
        (statement,) = json.loads(trust)["Statement"]
        assert statement["Condition"]["StringEquals"]["aws:SourceAccount"] == site["account"]


@pytest.mark.parametrize("what", ["bucket", "key", "experiment", "trial", "run"])
def test_a_role_is_for_the_partys_own(made: Recording, parties: Any, what: str):
    """Not even by a slip in another account's policies does one reach what is another's."""
    for party in parties:
        service = "coordinator" if party == AGGREGATOR else "agent"
        policy = made.of(":RolePolicy", f"{party}-{service}").properties["policy"]
        for other, site in parties.items():
            action, resource, context = _use(what, other, site)
            allowed = iam.decision(policy, action, resource, context) == "Allow"
            assert allowed is (other == party), f"{party} {action} {resource}"


def _use(what: str, party: str, site: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    """What a party does with its own: action, resource, and what AWS knows besides."""
    bucket, folder, does = (
        ("artifacts", "runs", "s3:PutObject")
        if party == AGGREGATOR
        else ("vault", "data", "s3:GetObject")
    )
    file = f"arn:aws:s3:::{party}-{bucket}-0123abc/{folder}/one"
    name = (
        experiments.of_aggregator("heart")
        if party == AGGREGATOR
        else experiments.of_silo("heart", party)
    )
    tracked = f"arn:aws:sagemaker:{site['region']}:{site['account']}"
    # The monitor makes all ARNs in one Region and account.
    key = f"arn:aws:kms:eu-central-1:000000000000:key/{party}-data"
    in_s3 = {
        "kms:ViaService": "s3.eu-central-1.amazonaws.com",
        "kms:EncryptionContext:aws:s3:arn": file,
    }
    trial = f"{tracked}:experiment-trial/{experiments.trial(name)}"
    run = f"{tracked}:experiment-trial-component/{experiments.component(name, 'one')}"
    return {
        "bucket": (does, file, {}),
        "key": ("kms:Decrypt", key, in_s3),
        "experiment": ("sagemaker:CreateExperiment", f"{tracked}:experiment/{name}", {}),
        "trial": ("sagemaker:CreateTrial", trial, {}),
        "run": ("sagemaker:BatchPutMetrics", run, {}),
    }[what]


def test_an_agent_reads_where_its_role_lets_it(made: Recording, parties: Any):
    for party in parties.keys() - {AGGREGATOR}:
        settings = made.of("v1:ConfigMap", f"{party}-agent").properties["data"]
        assert settings["FL_DATA"] == f"s3://{party}-vault-0123abc/data"
        policy = made.of(":RolePolicy", f"{party}-agent").properties["policy"]
        bucket = f"arn:aws:s3:::{party}-vault-0123abc"
        listed = {"s3:prefix": "data/"}
        assert iam.decision(policy, "s3:ListBucket", bucket, listed) == "Allow"
        for action in ("s3:PutObject", "s3:DeleteObject"):
            assert iam.decision(policy, action, f"{bucket}/data/one") == ""


# Observability


def test_every_log_group_is_kept_as_long_as_the_file_says(
    made: Recording, stack: str, parties: Any
):
    days = stacks.filled(stack)["log_days"]
    for party in parties:
        cluster = _only(_theirs(made, party), "eks/cluster:Cluster")["name"]
        groups = {one["name"]: one for one in _kind(_theirs(made, party), ":LogGroup")}
        assert groups.keys() == {
            f"/fl-silos/heart/{party}/flow",
            f"/aws/eks/{cluster}/cluster",
            *(
                f"/aws/containerinsights/{cluster}/{kind}"
                for kind in ("application", "dataplane", "host", "performance")
            ),
        }
        for one in groups.values():
            assert one["retentionInDays"] == days
            assert one["kmsKeyId"].endswith(f":key/{party}-logs")


def test_somebody_is_told_of_what_goes_wrong(made: Recording, stack: str, parties: Any):
    config = stacks.filled(stack)
    told = config["alerts"]["emails"]
    silos = [one["name"] for one in config["silos"]]
    for party in parties:
        theirs = _theirs(made, party)
        alarms = [one.name for one in theirs if one.kind.endswith(":MetricAlarm")]
        more = ["runs-failed", *(f"seen-{silo}" for silo in silos)] if party == AGGREGATOR else []
        assert sorted(alarms) == sorted(f"{party}-{what}" for what in ["restarts", *more])
        subscriptions = _kind(theirs, ":TopicSubscription")
        assert [one["endpoint"] for one in subscriptions] == told
        topic = subscriptions[0]["topic"]
        assert topic.endswith(f"/{party}-alarms")
        assert all(one["alarmActions"] == [topic] for one in _kind(theirs, ":MetricAlarm"))
        budget = _only(theirs, ":Budget")
        assert budget["limitAmount"] == str(config["alerts"]["monthly_budget"])
        assert {one["notificationType"] for one in budget["notifications"]} == {
            "ACTUAL",
            "FORECASTED",
        }
        board = json.loads(_only(theirs, ":Dashboard")["dashboardBody"])
        assert {one["type"] for one in board["widgets"]} >= {"alarm", "metric", "log"}


# The stacks as such


@pytest.mark.parametrize("name", ["dev", "staging"])
def test_a_preview_shows_all_that_is_made(name: str):
    """What is made only once something is known would be missing here."""
    preview = record(stacks.filled(name), name, preview=True)
    assert preview.resources.keys() == stacks.recorded(name).resources.keys()


@pytest.mark.parametrize("name", ["dev", "staging"])
def test_a_preview_of_the_file_as_it_is_shows_all_but_workloads(name: str):
    content = stacks.filled(name)
    del content["image"]
    assert _without_readers(stacks.previewed(name)) == _without_readers(record(content, name))


def _without_readers(made: Recording) -> set[str]:
    """The resources without subscriptions, which are called by their addresses."""
    return {urn for urn, one in made.resources.items() if not one.kind.endswith("Subscription")}


def test_parties_with_stacks_of_their_own_share_no_resource():
    config = stacks.filled("dev")
    whole = stacks.recorded("dev")
    guests = [{key: one[key] for key in ("name", "account", "region")} for one in config["silos"]]
    alone = record({**config, "party": "aggregator", "silos": guests}, "dev")
    found = {AGGREGATOR: {*alone.resources}}
    known = {
        "service": "com.amazonaws.vpce.eu-central-1.vpce-svc-0123456789abcdef0",
        "authority": "-----BEGIN CERTIFICATE-----\n" + "A" * 64,
        "certificate": "-----BEGIN CERTIFICATE-----\n" + "B" * 64,
    }
    for silo in config["silos"]:
        aggregator = {key: config["aggregator"][key] for key in ("account", "region")}
        own = {key: value for key, value in config.items() if key not in ("silos", "run")}
        given = {**own, "party": "silo", "silo": silo, "aggregator": aggregator | known}
        found[silo["name"]] = {*record(given, "dev").resources}
    shared = {"urn:pulumi:dev::fl-silos::pulumi:providers:tls::tls"}
    seen: set[str] = set()
    for urns in found.values():
        assert urns & seen <= shared
        seen |= urns
    # All of it is what one stack for all would make, but for who makes a silo's key.
    assert {urn for urn in seen ^ {*whole.resources} if ":tls:" not in urn.replace("$", ":")} == {
        f"urn:pulumi:dev::fl-silos::fl-silos:infra:Applicant::{silo['name']}"
        for silo in config["silos"]
    }


def _silos(names: Sequence[str]) -> dict[str, Any]:
    """The stack `dev` with silos of these names."""
    config = stacks.filled("dev")
    like = config["silos"][0]
    config["silos"] = [
        {
            **copy.deepcopy(like),
            "name": name,
            "account": f"{100_000_000_000 + i}",
            "cidr": f"10.{i}.0.0/16",
        }
        for i, name in enumerate(names, start=1)
    ]
    return config


def test_a_silo_may_be_called_as_another_silos_part():
    names = ["north", "north-agent", "north-cluster", "north-images", "north-link", "north-node"]
    made = record(_silos(names), "dev")  # which refuses two of the same name
    for name in names:
        assert _only(_theirs(made, name), "eks/cluster:Cluster")["encryptionConfig"]


def test_each_silo_adds_as_much_as_any_other():
    ten = record(_silos([f"silo-{i}" for i in range(10)]), "dev")
    more = len(ten.resources) - len(stacks.recorded("dev").resources)
    assert more % 8 == 0
    assert more // 8 <= 125
    at_aggregator = [len(_theirs(made, AGGREGATOR)) for made in (stacks.recorded("dev"), ten)]
    # An entry in the list of who may connect, and that the silo is looked out for.
    assert at_aggregator[1] - at_aggregator[0] == 8 * 3
