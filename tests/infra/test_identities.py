"""Keys and certificates are asked for as the transport wants them."""

from __future__ import annotations

from typing import Any

import pytest

from fl_core.transport.identity import CA_FILE, CERTIFICATE_FILE, KEY_FILE, party_of, server_name

from .recording import Recording, Secret, opened


def _of(recording: Recording, kind: str, name: str) -> dict[str, Any]:
    return recording.of(f":{kind}", name).properties


def test_keys_are_on_p256(recording: Recording):
    keys = recording.all(":PrivateKey")
    assert {one.name for one in keys} == {"authority", "aggregator", "north", "south", "operator"}
    for one in keys:
        assert one.properties == {"algorithm": "ECDSA", "ecdsaCurve": "P256"}


@pytest.mark.parametrize(
    ("name", "kind", "party", "use"),
    [
        ("aggregator", "aggregator", "", "server_auth"),
        ("north", "silo", "north", "client_auth"),
        ("operator", "operator", "operator", "client_auth"),
    ],
)
def test_a_certificate_names_one_party(
    recording: Recording, name: str, kind: str, party: str, use: str
):
    request = _of(recording, "CertRequest", name)
    found = party_of(request["uris"])
    assert found is not None
    assert (found.federation, found.kind, found.name) == ("heart", kind, party)
    certificate = _of(recording, "LocallySignedCert", name)
    assert certificate["allowedUses"] == ["digital_signature", use]
    assert not certificate.get("isCaCertificate")
    assert certificate["certRequestPem"] == f"REQUEST OF {name}"
    assert certificate["caCertPem"] == "CERTIFICATE OF authority"
    assert certificate["caPrivateKeyPem"] == Secret("KEY OF authority")
    assert request["privateKeyPem"] == Secret(f"KEY OF {name}")


def test_only_the_aggregator_has_the_name_that_silos_demand(recording: Recording):
    for one in recording.all(":CertRequest"):
        expected = [server_name("heart")] if one.name == "aggregator" else None
        assert one.properties.get("dnsNames") == expected


def test_the_authority_signs_parties_and_no_other_authority(recording: Recording):
    authority = _of(recording, "SelfSignedCert", "authority")
    assert authority["isCaCertificate"] is True
    assert authority["maxPathLength"] == 0
    assert authority["allowedUses"] == ["cert_signing", "crl_signing"]
    assert authority["setSubjectKeyId"] is authority["setAuthorityKeyId"] is True


def test_no_certificate_outlives_its_authority(recording: Recording):
    authority = _of(recording, "SelfSignedCert", "authority")
    for one in recording.all(":LocallySignedCert"):
        hours = one.properties["validityPeriodHours"]
        assert 0 < one.properties["earlyRenewalHours"] < hours / 2
        assert hours < authority["earlyRenewalHours"] < authority["validityPeriodHours"] / 2


def test_the_files_are_those_that_fl_reads(recording: Recording):
    files = {CERTIFICATE_FILE, KEY_FILE, CA_FILE}
    assert set(opened(_of(recording, "Secret", "north-identity")["data"])) == files
    assert set(opened(recording.outputs["operator"])) == files
