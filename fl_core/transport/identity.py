"""Identities: certificates with a SPIFFE URI (https://spiffe.io), and their authority.

``spiffe://FEDERATION/aggregator`` and ``spiffe://FEDERATION/silo/NAME``. Keys are P-256 from the
operating system's randomness.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_SILO = re.compile(r"spiffe://([a-z0-9-]+)/silo/([a-z0-9-]+)")


@dataclass(frozen=True)
class Identity:
    """A party's certificate, its private key, and the authority that it trusts; all PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    authority: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hexadecimal."""
        return x509.load_pem_x509_certificate(self.certificate).fingerprint(hashes.SHA256()).hex()


def aggregator_uri(federation: str) -> str:
    """The aggregator's SPIFFE URI."""
    return f"spiffe://{federation}/aggregator"


def silo_uri(federation: str, silo: str) -> str:
    """A silo's SPIFFE URI."""
    return f"spiffe://{federation}/silo/{silo}"


def server_name(federation: str) -> str:
    """The DNS name that silos demand of the aggregator's certificate; no silo's has it."""
    return f"aggregator.{federation}.internal"


def silo_of(uris: list[str], federation: str) -> str | None:
    """The silo that a certificate's URIs name in ``federation``, or None."""
    if len(uris) != 1:
        return None
    match = _SILO.fullmatch(uris[0])
    return match.group(2) if match and match.group(1) == federation else None


class Authority:
    """A certificate authority that lives in memory only."""

    def __init__(self, federation: str, valid: dt.timedelta) -> None:
        self.federation = federation
        self._valid = valid
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{federation} authority")])
        self._certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = self._certificate.public_bytes(serialization.Encoding.PEM)

    def aggregator(self, addresses: list[str]) -> Identity:
        """An identity for the aggregator, valid at the IP ``addresses`` as well as by name."""
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(aggregator_uri(self.federation)),
            x509.DNSName(server_name(self.federation)),
        ]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        return self._issue("aggregator", names, ExtendedKeyUsageOID.SERVER_AUTH)

    def silo(self, name: str) -> Identity:
        """An identity for a silo."""
        uri = x509.UniformResourceIdentifier(silo_uri(self.federation, name))
        return self._issue(name, [uri], ExtendedKeyUsageOID.CLIENT_AUTH)

    def _issue(
        self, name: str, names: list[x509.GeneralName], usage: x509.ObjectIdentifier
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Identity(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            self.certificate,
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + self._valid)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(authority, critical=False)
        )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
