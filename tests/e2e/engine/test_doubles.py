"""The doubles' own logic: values, changes of objects, certificates. No engine, no API server."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from . import differences
from . import kubernetes_objects as objects
from . import tls_certificates as certificates
from .errors import EngineError
from .kubectl import server_of
from .properties import (
    UNKNOWN,
    Secret,
    decode,
    encode,
    has_unknown,
    plain,
    secret_paths,
    secret_strings,
    with_secrets,
)

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "agent", "namespace": "heart-a"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "agent"}},
        "template": {"spec": {"containers": [{"name": "fl", "image": "fl:1", "env": []}]}},
    },
}


def changed(**metadata: Any) -> dict[str, Any]:
    """The Deployment with other metadata."""
    return DEPLOYMENT | {"metadata": DEPLOYMENT["metadata"] | metadata}


def diff(old: Any, new: Any) -> dict[str, bool]:
    """Paths that changed, and whether each replaces."""
    return {
        differences.path_text(change.path): objects.replaces(change, new)
        for change in differences.changes(old, new)
    }


def test_values_survive_the_message() -> None:
    values = {"a": Secret({"b": [1, 1.5, True, "x"]}), "c": UNKNOWN, "d": {}, "e": []}
    decoded = decode(encode(values))
    assert plain(decoded) == plain(values)
    assert list(secret_paths(decoded)) == [("a",)]
    assert has_unknown(decoded)
    assert isinstance(plain(decoded)["a"]["b"][0], int)


def test_a_secret_shows_in_no_representation() -> None:
    value = {"a": Secret("hidden"), "b": [Secret({"c": "veiled"})], "d": "open"}
    assert "hidden" not in repr(value)
    assert "veiled" not in repr(value)
    assert sorted(secret_strings(value)) == ["hidden", "veiled"]


def test_secrets_are_set_where_they_were_or_around_it() -> None:
    live = {"spec": {"env": [{"value": "x"}]}, "data": "y"}
    paths = [("spec", "env", 0, "value"), ("spec", "env", 7), ("gone",)]
    marked = with_secrets(live, iter(paths))
    assert isinstance(marked["spec"]["env"], Secret)
    assert plain(marked) == live


def test_equal_objects_differ_in_nothing() -> None:
    assert diff(DEPLOYMENT, changed()) == {}


def test_an_image_changes_in_place() -> None:
    new = changed()
    new["spec"] = {
        **DEPLOYMENT["spec"],
        "template": {"spec": {"containers": [{"name": "fl", "image": "fl:2", "env": []}]}},
    }
    assert diff(DEPLOYMENT, new) == {"spec.template.spec.containers[0].image": False}


@pytest.mark.parametrize("key", ["name", "namespace"])
def test_another_name_or_namespace_replaces(key: str) -> None:
    new = changed(**{key: "other"})
    assert diff(DEPLOYMENT, new) == {f"metadata.{key}": True}
    assert not objects.same_name(DEPLOYMENT, new)


def test_a_name_that_is_not_known_replaces() -> None:
    assert diff(DEPLOYMENT, DEPLOYMENT | {"metadata": UNKNOWN}) == {"metadata": True}


def test_a_selector_replaces_also_when_all_of_spec_comes_or_goes() -> None:
    without = {key: value for key, value in DEPLOYMENT.items() if key != "spec"}
    assert diff(without, DEPLOYMENT) == {"spec": True}
    assert diff(DEPLOYMENT, without) == {"spec": True}
    assert diff(without, without | {"spec": {"replicas": 2}}) == {"spec": False}


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_contents_replace_unless_they_may_change(kind: str) -> None:
    old = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}, "data": {"a": "1"}}
    new = old | {"data": {"a": "2"}}
    (change,) = differences.changes(old, new)
    assert objects.replaces(change, new)
    assert not objects.replaces(change, new, frozenset({kind}))
    assert objects.replaces(change, new | {"immutable": True}, frozenset({kind}))
    assert objects.same_name(old, new)


def test_a_secrets_type_replaces_whatever_may_change() -> None:
    old = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "type": "Opaque"}
    new = old | {"type": "kubernetes.io/tls"}
    (change,) = differences.changes(old, new)
    assert objects.replaces(change, new, frozenset({"Secret"}))


def test_a_path_quotes_what_is_no_word() -> None:
    assert differences.path_text(("metadata", "annotations", "a.b/c", 0)) == (
        'metadata.annotations["a.b/c"][0]'
    )


def test_a_name_is_made_up_once() -> None:
    inputs = {"apiVersion": "v1", "kind": "ConfigMap"}
    first = objects.named(inputs, {}, "settings", b"seed")
    name = first["metadata"]["name"]
    assert name.startswith("settings-")
    assert objects.named(inputs, first, "settings", b"other seed") == first
    assert not objects.same_name(first, first)  # a new one can stand beside the old one


def test_the_namespace_of_the_provider_is_for_what_has_none() -> None:
    assert objects.in_namespace(DEPLOYMENT, "other") == DEPLOYMENT
    bare = {"kind": "ConfigMap", "metadata": {"name": "x"}}
    assert objects.identity(objects.in_namespace(bare, "other")) == "other/x"
    cluster = {"kind": "Namespace", "metadata": {"name": "x"}}
    assert objects.in_namespace(cluster, "other") == cluster
    assert objects.identity(cluster) == "x"


def test_outputs_of_a_secret_are_secret() -> None:
    inputs = {"kind": "Secret", "stringData": {"a": "hidden"}}
    live = {"kind": "Secret", "data": {"a": "aGlkZGVu"}, "metadata": {"managedFields": [1]}}
    found = objects.outputs(inputs, live)
    assert sorted(secret_strings(found)) == ["aGlkZGVu", "hidden"]
    assert "managedFields" not in found["metadata"]
    assert "managedFields" in live["metadata"]


def test_drift_is_what_is_no_longer_as_it_was_recorded() -> None:
    inputs = {"cpu": "0.5", "replicas": 1, "gone": "x", "list": [{"a": 1}], "written": "only"}
    recorded = {"cpu": "500m", "replicas": 1, "gone": "x", "list": [{"a": 1, "default": 2}]}
    assert objects.drifted(inputs, recorded, recorded) == inputs
    live = {"cpu": "500m", "replicas": 3, "list": [{"a": 2, "default": 2}], "new": True}
    assert objects.drifted(inputs, recorded, live) == {
        "cpu": "0.5",
        "replicas": 3,
        "list": [{"a": 2}],
        "written": "only",
    }


@pytest.mark.parametrize(
    "token", ["kubernetes:core/v1:ConfigMapList", "kubernetes:helm.sh/v3:Chart"]
)
def test_what_a_double_does_not_serve_it_says(token: str) -> None:
    with pytest.raises(EngineError, match="test double"):
        objects.check(token, {"apiVersion": "v1", "kind": "ConfigMap"})


def test_a_reference_from_an_imported_id() -> None:
    assert objects.from_identity("kubernetes:core/v1:ConfigMap", "heart-a/x") == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "namespace": "heart-a"},
    }


def test_the_server_that_a_kubeconfig_leads_to() -> None:
    config = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "one"}}],
        "clusters": [{"name": "one", "cluster": {"server": "https://127.0.0.1:1"}}],
    }
    assert server_of(config, None, None) == "https://127.0.0.1:1"
    assert server_of(config, "b", None) is None
    assert server_of(None, None, None) is None


def chain(**leaf: Any) -> tuple[x509.Certificate, x509.Certificate, dict[str, Any]]:
    """An authority's certificate, one that it signed, and the latter's outputs."""
    _, key = certificates.private_key({"algorithm": "ECDSA", "ecdsaCurve": "P256"})
    common = {"validityPeriodHours": 24, "isCaCertificate": True}
    _, ca = certificates.self_signed_cert(
        {
            **common,
            "privateKeyPem": key["privateKeyPem"],
            "subject": {"commonName": "heart", "organization": "fl"},
            "allowedUses": ["cert_signing", "crl_signing"],
        }
    )
    _, own = certificates.private_key({"algorithm": "ECDSA", "ecdsaCurve": "P256"})
    uris = ["spiffe://heart/silo/a"]
    _, request = certificates.cert_request({"privateKeyPem": own["privateKeyPem"], "uris": uris})
    _, signed = certificates.locally_signed_cert(
        {
            "certRequestPem": request["certRequestPem"],
            "caCertPem": ca["certPem"],
            "caPrivateKeyPem": key["privateKeyPem"],
            "allowedUses": ["client_auth", "digital_signature"],
            "validityPeriodHours": 24,
            **leaf,
        }
    )
    pems = [ca["certPem"].encode(), signed["certPem"].encode()]
    authority, certificate = map(x509.load_pem_x509_certificate, pems)
    return authority, certificate, signed


def test_a_signed_certificate_verifies() -> None:
    authority, certificate, _ = chain()
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical  # the subject is empty
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["spiffe://heart/silo/a"]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert not constraints.value.ca
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_certificate_is_ready_for_renewal_in_its_early_hours() -> None:
    _, _, outputs = chain(earlyRenewalHours=25)
    assert outputs["readyForRenewal"]
    _, _, outputs = chain(earlyRenewalHours=1)
    assert not outputs["readyForRenewal"]
    late = dt.datetime.now(dt.UTC) + dt.timedelta(hours=23, minutes=30)
    assert certificates.ready_for_renewal(outputs, 1, late)


@pytest.mark.parametrize(
    ("inputs", "header"),
    [
        ({"algorithm": "ECDSA", "ecdsaCurve": "P384"}, "EC PRIVATE KEY"),
        ({"algorithm": "RSA", "rsaBits": 2048}, "RSA PRIVATE KEY"),
        ({"algorithm": "ED25519"}, "PRIVATE KEY"),
        ({"algorithm": "ECDSA"}, "EC PRIVATE KEY"),
    ],
)
def test_keys_in_their_forms(inputs: dict[str, Any], header: str) -> None:
    _, outputs = certificates.private_key(inputs)
    assert outputs["privateKeyPem"].startswith(f"-----BEGIN {header}-----")
    pkcs8 = serialization.load_pem_private_key(outputs["privateKeyPemPkcs8"].encode(), None)
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public = pkcs8.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()
    assert public == outputs["publicKeyPem"]
    if isinstance(pkcs8, ec.EllipticCurvePrivateKey):
        assert outputs["ecdsaCurve"] == {384: "P384", 224: "P224"}[pkcs8.key_size]


def test_what_is_no_key_is_told_without_showing_it() -> None:
    with pytest.raises(EngineError, match="privateKeyPem is no private key") as caught:
        certificates.cert_request({"privateKeyPem": "hidden"})
    assert "hidden" not in str(caught.value)
