"""What Kubernetes is given: valid, closed, and no more allowed than needed."""

from __future__ import annotations

import base64
import json
from typing import Any

import kubernetes_validate
import pytest

from infra import data, pod

from .conftest import ROWS, Config
from .recording import Recording, hidden, opened, record

KUBERNETES = "1.34"
SERVICES = {"coordinator": ("StatefulSet", "aggregator"), "agent": ("Deployment", "north")}
OPEN = {"ingress": [], "egress": [], "podSelector": {"matchLabels": {}}}


def _pod(recording: Recording, service: str) -> dict[str, Any]:
    kind, party = SERVICES[service]
    return recording.of(kind, f"{party}-{service}").properties["spec"]["template"]


def _policy(recording: Recording, name: str) -> dict[str, Any]:
    return recording.of("NetworkPolicy", name).properties["spec"]


def test_every_manifest_is_valid(recording: Recording):
    assert len(recording.manifests) == 26
    for manifest in recording.manifests:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_validation_finds_misspelt_fields(recording: Recording):
    manifest = opened(recording.of("Deployment", "north-agent").properties)
    manifest["spec"]["template"]["spec"]["containers"][0]["imagePullPolcy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_no_object_is_there_twice(recording: Recording):
    places = [
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
        for one in recording.manifests
    ]
    assert len(set(places)) == len(places)


def test_no_resource_has_a_default_provider(recording: Recording):
    for one in recording.resources.values():
        if one.custom and not one.kind.startswith("pulumi:providers:"):
            package = one.kind.partition(":")[0]
            name = {"kubernetes": "cluster", "tls": "tls"}[package]
            assert one.provider.endswith(f"pulumi:providers:{package}::{name}"), one.short


def test_the_provider_applies_on_the_server_and_changes_in_place(recording: Recording):
    assert recording.of("providers:kubernetes").properties == {
        "enableServerSideApply": "true",
        "enableConfigMapMutable": "true",
        "enableSecretMutable": "true",
    }


def test_a_configured_cluster_is_given_to_the_provider(
    federation: Config, api_server: str, home: Any
):
    (home / ".kube" / "config").rename(home / "other")
    recording = record(federation | {"kubeconfig": "~/other", "context": "here"})
    given = recording.of("providers:kubernetes").properties
    assert (given["kubeconfig"], given["context"]) == (str(home / "other"), "here")


def test_standard_labels_are_on_every_object(recording: Recording):
    for manifest in recording.manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "fl-silos"
        assert labels["app.kubernetes.io/instance"] == "heart"
        assert labels["app.kubernetes.io/part-of"] == "fl-silos"
        assert labels["app.kubernetes.io/managed-by"] == "pulumi"
        assert labels["app.kubernetes.io/component"] in {"aggregator", "silo", *SERVICES}


# Namespaces


def test_there_is_a_namespace_for_each_party(recording: Recording):
    names = {one.properties["metadata"]["name"] for one in recording.all("Namespace")}
    assert names == {"heart-aggregator", "heart-north", "heart-south"}


def test_namespaces_refuse_what_is_not_restricted(recording: Recording):
    for one in recording.all("v1:Namespace"):
        labels = one.properties["metadata"]["labels"]
        for mode in ("enforce", "audit", "warn"):
            assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


# Pods


@pytest.mark.parametrize("service", SERVICES)
def test_pods_are_restricted(recording: Recording, service: str):
    spec = _pod(recording, service)["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }
    for door in ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers"):
        assert door not in spec


@pytest.mark.parametrize("service", SERVICES)
def test_pods_have_no_token_and_no_service_links(recording: Recording, service: str):
    spec = _pod(recording, service)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    account = recording.of("ServiceAccount", f"{SERVICES[service][1]}-{service}").properties
    assert account["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == account["metadata"]["name"]


@pytest.mark.parametrize("service", SERVICES)
def test_pods_are_probed(recording: Recording, service: str):
    (container,) = _pod(recording, service)["spec"]["containers"]
    paths = {"startupProbe": "/healthy", "readinessProbe": "/ready", "livenessProbe": "/healthy"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe, path in paths.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "health", "scheme": "HTTP"}
    assert ports["health"] == 8480


@pytest.mark.parametrize("service", SERVICES)
def test_pods_have_requests_limits_and_time_to_drain(recording: Recording, service: str):
    spec = _pod(recording, service)["spec"]
    (container,) = spec["containers"]
    for amounts in ("requests", "limits"):
        assert set(container["resources"][amounts]) == {"cpu", "memory"}
    assert spec["terminationGracePeriodSeconds"] >= 30


@pytest.mark.parametrize("service", SERVICES)
def test_pods_spread_over_nodes(recording: Recording, service: str):
    template = _pod(recording, service)
    (constraint,) = template["spec"]["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "kubernetes.io/hostname"
    assert _selects(constraint["labelSelector"], template["metadata"]["labels"])
    term = template["spec"]["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ][0]["podAffinityTerm"]
    assert _selects(term["labelSelector"], template["metadata"]["labels"])
    for one in recording.all("v1:Namespace"):
        assert _selects(term["namespaceSelector"], one.properties["metadata"]["labels"])


@pytest.mark.parametrize("service", SERVICES)
def test_pods_run_fl_with_the_settings_of_their_config_map(recording: Recording, service: str):
    (container,) = _pod(recording, service)["spec"]["containers"]
    assert container["args"] == [service]
    assert container["envFrom"] == [{"configMapRef": {"name": service}}]
    assert "env" not in container
    settings = recording.of("ConfigMap", f"{SERVICES[service][1]}-{service}").properties
    assert settings["metadata"]["name"] == service
    assert all(name.startswith("FL_") for name in settings["data"])


@pytest.mark.parametrize("service", SERVICES)
def test_everything_that_is_mounted_is_there(recording: Recording, service: str):
    template = _pod(recording, service)["spec"]
    volumes = {one["name"]: one for one in template["volumes"]}
    if service == "coordinator":
        (claim,) = recording.of("StatefulSet").properties["spec"]["volumeClaimTemplates"]
        volumes[claim["metadata"]["name"]] = claim
    mounts = {one["mountPath"]: one for one in template["containers"][0]["volumeMounts"]}
    folders = {"/identity", "/var/lib/fl", "/tmp"}  # noqa: S108 - what is mounted there
    folders |= {"/data"} if service == "agent" else set()
    assert set(mounts) == folders
    assert {mount["name"] for mount in mounts.values()} == set(volumes)
    party = SERVICES[service][1]
    for volume in volumes.values():
        if secret := volume.get("secret"):
            made = recording.of("Secret", f"{party}-{secret['secretName']}").properties
            assert made["metadata"]["name"] == secret["secretName"]
            # `fl` refuses a key that everybody may read.
            assert secret["defaultMode"] & 0o007 == 0
            assert secret["defaultMode"] & 0o040
        elif "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]
    assert mounts["/identity"]["readOnly"]


@pytest.mark.parametrize("service", SERVICES)
def test_workloads_find_their_pods_and_wait_for_what_they_need(recording: Recording, service: str):
    kind, party = SERVICES[service]
    workload = recording.of(kind, f"{party}-{service}")
    spec = workload.properties["spec"]
    assert spec["replicas"] == 1
    assert _selects(spec["selector"], spec["template"]["metadata"]["labels"])
    after = {urn.partition("$")[2].rpartition(":")[2] for urn in workload.dependencies}
    kinds = {recording.resources[urn].kind.rpartition(":")[2] for urn in workload.dependencies}
    assert {"ServiceAccount", "ConfigMap", "Secret", "NetworkPolicy"} <= kinds
    assert {f"{party}-default-deny", f"{party}-{service}", f"{party}-identity"} <= after


@pytest.mark.parametrize("service", SERVICES)
def test_no_eviction_ends_a_run(recording: Recording, service: str):
    budget = recording.of("PodDisruptionBudget", f"{SERVICES[service][1]}-{service}").properties
    labels = _pod(recording, service)["metadata"]["labels"]
    assert budget["spec"]["minAvailable"] == 1
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert _selects(budget["spec"]["selector"], labels)


def test_an_agent_goes_before_the_next_one_comes(recording: Recording):
    strategy = recording.of("Deployment", "north-agent").properties["spec"]["strategy"]
    assert strategy == {"type": "Recreate"}


def test_the_coordinators_volume_outlives_its_pod_and_its_stateful_set(recording: Recording):
    spec = recording.of("StatefulSet").properties["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "4Gi"
    # Its namespace is the stack's, so that a destroy leaves no claim.
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    namespace = recording.of("StatefulSet").properties["metadata"]["namespace"]
    assert namespace == recording.of("v1:Namespace", "aggregator").properties["metadata"]["name"]


def test_the_service_offers_control_and_a_port_for_each_run(federation: Config):
    recording = record(federation | {"aggregator": {"slots": 3}})
    spec = recording.of("Service").properties["spec"]
    ports = {port["name"]: port["port"] for port in spec["ports"]}
    assert ports == {"control": 8440, "run-1": 8441, "run-2": 8442, "run-3": 8443}
    template = _pod(recording, "coordinator")
    assert _selects({"matchLabels": spec["selector"]}, template["metadata"]["labels"])
    named = {
        one["name"]: one["containerPort"] for one in template["spec"]["containers"][0]["ports"]
    }
    assert {port["targetPort"]: port["port"] for port in spec["ports"]}.items() <= named.items()
    assert recording.of("ConfigMap", "aggregator-coordinator").properties["data"]["FL_SLOTS"] == "3"
    (rule,) = _policy(recording, "aggregator-coordinator")["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8440, "endPort": 8443}]


def test_the_most_slots_leave_the_health_port_alone(federation: Config):
    recording = record(federation | {"aggregator": {"slots": 32}})
    (container,) = _pod(recording, "coordinator")["spec"]["containers"]
    ports = [port["containerPort"] for port in container["ports"]]
    assert len(set(ports)) == len(ports) == 34


# Network


@pytest.mark.parametrize("party", ["aggregator", "north", "south"])
def test_every_namespace_is_closed(recording: Recording, party: str):
    spec = _policy(recording, f"{party}-default-deny")
    assert spec == {**OPEN, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("silo", ["north", "south"])
def test_nothing_reaches_a_silo(recording: Recording, silo: str):
    namespace = f"heart-{silo}"
    policies = [
        one.properties["spec"]
        for one in recording.all("NetworkPolicy")
        if one.properties["metadata"]["namespace"] == namespace
    ]
    assert len(policies) == 2
    assert all(policy["ingress"] == [] for policy in policies)
    services = [one.properties["metadata"]["namespace"] for one in recording.all("v1:Service")]
    assert namespace not in services


def test_only_agents_of_the_federation_reach_the_coordinator(recording: Recording):
    spec = _policy(recording, "aggregator-coordinator")
    assert spec["egress"] == []
    assert _selects(spec["podSelector"], _pod(recording, "coordinator")["metadata"]["labels"])
    (rule,) = spec["ingress"]
    (peer,) = rule["from"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8440, "endPort": 8441}]
    assert _selects(peer["podSelector"], _pod(recording, "agent")["metadata"]["labels"])
    for one in recording.all("v1:Namespace"):
        labels = one.properties["metadata"]["labels"]
        assert _selects(peer["namespaceSelector"], labels) == (one.name != "aggregator")
    others = pod.labels("lungs", "silo")
    assert not _selects(peer["namespaceSelector"], others)


def test_an_agent_reaches_the_coordinator_and_dns(recording: Recording):
    spec = _policy(recording, "north-agent")
    assert _selects(spec["podSelector"], _pod(recording, "agent")["metadata"]["labels"])
    coordinator, dns = spec["egress"]
    (peer,) = coordinator["to"]
    assert coordinator["ports"] == [{"protocol": "TCP", "port": 8440, "endPort": 8441}]
    assert _selects(peer["podSelector"], _pod(recording, "coordinator")["metadata"]["labels"])
    labels = recording.of("v1:Namespace", "aggregator").properties["metadata"]["labels"]
    assert _selects(peer["namespaceSelector"], labels)
    assert {port["port"] for port in dns["ports"]} == {53}
    assert dns["to"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "kube-system"
    }


def test_only_an_agent_whose_data_is_in_s3_reaches_it(recording: Recording):
    *others, https, credentials = _policy(recording, "south-agent")["egress"]
    assert https == {"ports": [{"protocol": "TCP", "port": 443}]}
    # EKS Pod Identity's agent, on the pod's own node
    assert credentials == {
        "to": [
            {"ipBlock": {"cidr": "169.254.170.23/32"}},
            {"ipBlock": {"cidr": "fd00:ec2::23/128"}},
        ],
        "ports": [{"protocol": "TCP", "port": 80}],
    }
    assert _policy(recording, "north-agent")["egress"] == others


# Data and secrets


def test_a_file_gets_the_silos_name(recording: Recording):
    secret = recording.of("Secret", "north-data").properties
    assert opened(secret["data"]) == {"north.csv": _base64(ROWS)}
    assert recording.of("ConfigMap", "north-agent").properties["data"]["FL_DATA"] == "/data"


def test_the_files_of_a_folder_keep_their_names(federation: Config, tmp_path: Any):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("a.csv", "b.csv", "notes.txt", ".hidden.csv"):
        (folder / name).write_text(name)
    federation["silos"][0]["data"] = str(folder)
    secret = record(federation).of("Secret", "north-data").properties
    assert opened(secret["data"]) == {name: _base64(name) for name in ("a.csv", "b.csv")}


def test_data_in_s3_stays_there(recording: Recording):
    settings = recording.of("ConfigMap", "south-agent").properties["data"]
    assert settings["FL_DATA"] == "s3://south-data/heart"
    assert "south-data" not in {one.name for one in recording.all("Secret")}
    template = recording.of("Deployment", "south-agent").properties["spec"]["template"]["spec"]
    assert "data" not in {volume["name"] for volume in template["volumes"]}


def test_the_paths_of_the_local_stack_are_the_projects():
    assert (data.ROOT / "stacks" / "Pulumi.local.yaml").exists()


def test_nothing_secret_is_in_plain_text(recording: Recording):
    shown = json.dumps([hidden(one.properties) for one in recording.resources.values()])
    shown += json.dumps(hidden(recording.outputs))
    for secret in ("KEY OF", ROWS, "41,no"):
        assert secret not in shown
        assert _base64(secret)[:-4] not in shown
    assert _base64("PKCS8 KEY OF north") not in shown
    assert hidden(recording.outputs)["operator"] == "[secret]"


def test_every_value_of_a_secret_object_is_secret(recording: Recording):
    secrets = recording.all("v1:Secret")
    assert len(secrets) == 4
    for one in secrets:
        shown = hidden(one.properties["data"])
        assert shown == "[secret]" or set(shown.values()) == {"[secret]"}


def test_the_authoritys_key_is_in_no_cluster(recording: Recording):
    given = json.dumps(recording.manifests)
    for key in ("KEY OF authority", "PKCS8 KEY OF authority", "PKCS8 KEY OF operator"):
        assert key not in given
        assert _base64(key) not in given
    assert _base64("PKCS8 KEY OF north") in given


def test_each_namespace_has_its_own_key_only(recording: Recording):
    for party in ("aggregator", "north", "south"):
        files = opened(recording.of("Secret", f"{party}-identity").properties["data"])
        assert files == {
            "tls.crt": _base64(f"CERTIFICATE OF {party}"),
            "tls.key": _base64(f"PKCS8 KEY OF {party}"),
            "ca.crt": _base64("CERTIFICATE OF authority"),
        }


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector["matchLabels"]
    assert wanted
    return wanted.items() <= labels.items()
