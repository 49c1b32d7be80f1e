"""Identities: what a certificate says, and whom it names."""

import datetime as dt
import ipaddress

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from fl_core.transport.authority import Authority
from fl_core.transport.identity import Identity, Party, party_of, server_name

FEDERATION = "trial"
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(FEDERATION, dt.timedelta(days=1))


def loaded(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def names(identity: Identity) -> x509.SubjectAlternativeName:
    extension = x509.SubjectAlternativeName
    return loaded(identity.certificate).extensions.get_extension_for_class(extension).value


def constraints(certificate: x509.Certificate) -> tuple[bool, int | None, bool]:
    found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    return found.value.ca, found.value.path_length, found.critical


def test_uris_name_federation_and_role():
    assert Party("f", "aggregator").uri == "spiffe://f/aggregator"
    assert Party("f", "silo", "a").uri == "spiffe://f/silo/a"
    assert Party("f", "operator", "ann").uri == "spiffe://f/operator/ann"
    assert server_name("f") == "aggregator.f.internal"


@given(labels, labels, st.sampled_from(["silo", "operator"]))
def test_a_uri_names_its_party(federation, name, kind):
    for party in (Party(federation, kind, name), Party(federation, "aggregator")):
        assert party_of([party.uri]) == party


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["spiffe://trial/silo/a", "spiffe://trial/silo/b"],
        ["spiffe://trial/silo/a", "spiffe://trial/silo/a"],
        ["spiffe://trial/silo/"],
        ["spiffe://trial/silo/a/b"],
        ["spiffe://trial/silo/../silo/a"],
        ["spiffe://trial/silo/a\n"],
        ["spiffe://trial/silo/a\0"],
        ["spiffe://trial/silo/A"],
        ["spiffe://trial/silo/%61"],
        ["spiffe://trial/silo/a?b"],
        ["spiffe://trial/silo/a#b"],
        ["spiffe://trial/silo/\u0430"],
        ["spiffe://trial:443/silo/a"],
        ["spiffe://x@trial/silo/a"],
        ["spiffe://trial.evil/silo/a"],
        ["spiffe:///silo/a"],
        ["spiffe://evil/spiffe://trial/silo/a"],
        ["xspiffe://trial/silo/a"],
        ["SPIFFE://trial/silo/a"],
        ["https://trial/silo/a"],
        ["spiffe://trial/aggregator/a"],
        ["spiffe://trial/operator/"],
        ["spiffe://trial/owner/a"],
        ["a"],
        [""],
    ],
)
def test_hostile_names_are_no_party(uris):
    assert party_of(uris) is None


@given(st.lists(st.text(), max_size=3))
def test_any_other_text_is_no_party(uris):
    assert party_of(uris) is None


def test_the_authority_signs_leaves_only(authority):
    certificate = loaded(authority.certificate)
    assert constraints(certificate) == (True, 0, True)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize("make", [lambda a: a.silo("a"), lambda a: a.aggregator(["127.0.0.1"])])
def test_a_leaf_cannot_sign_and_is_signed_by_its_authority(authority, make):
    identity = make(authority)
    certificate = loaded(identity.certificate)
    assert constraints(certificate) == (False, None, True)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert identity.authority == authority.certificate
    certificate.verify_directly_issued_by(loaded(authority.certificate))


def test_a_silo_can_only_be_a_client_and_the_aggregator_only_a_server(authority):
    assert usages(loaded(authority.silo("a").certificate)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    aggregator = loaded(authority.aggregator([]).certificate)
    assert usages(aggregator) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_a_silos_certificate_holds_its_uri_and_no_host_name(authority):
    found = names(authority.silo("north-1"))
    assert list(found) == [x509.UniformResourceIdentifier("spiffe://trial/silo/north-1")]


def test_the_aggregators_certificate_holds_its_names_and_addresses(authority):
    found = names(authority.aggregator(["127.0.0.1", "::1"]))
    assert found.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://trial/aggregator"
    ]
    assert found.get_values_for_type(x509.DNSName) == ["aggregator.trial.internal"]
    assert found.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]


def test_a_key_is_p256_belongs_to_its_certificate_and_is_given_once(authority):
    one, two = authority.silo("a"), authority.silo("a")
    key = serialization.load_pem_private_key(one.key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert loaded(one.certificate).public_key() == key.public_key()
    assert one.key != two.key
    assert one.fingerprint != two.fingerprint
    assert loaded(one.certificate).serial_number != loaded(two.certificate).serial_number


def test_a_certificate_is_valid_from_now_for_as_long_as_asked(authority):
    certificate = loaded(authority.silo("a").certificate)
    now = dt.datetime.now(dt.UTC)
    assert certificate.not_valid_before_utc < now
    assert now < certificate.not_valid_after_utc <= now + dt.timedelta(days=1)


def test_no_representation_shows_a_key(authority):
    identity = authority.silo("a")
    for text in (repr(identity), str(identity), f"{[identity]}", repr(authority), f"{authority}"):
        assert "PRIVATE" not in text
        assert identity.key.decode().splitlines()[1] not in text


def test_a_fingerprint_is_the_certificates_sha_256(authority):
    identity = authority.silo("a")
    assert len(identity.fingerprint) == 64
    assert int(identity.fingerprint, 16)


def test_two_authorities_of_one_federation_do_not_sign_for_each_other(authority):
    other = Authority(FEDERATION, dt.timedelta(days=1))
    foreign = loaded(other.silo("a").certificate)
    with pytest.raises(InvalidSignature):
        foreign.verify_directly_issued_by(loaded(authority.certificate))
