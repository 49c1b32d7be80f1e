"""The federation's certificate authority, which issues the parties' certificates."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fl_core.errors import CertificateError
from fl_core.transport.identity import (
    CA_FILE,
    Identity,
    Party,
    parsed_certificate,
    parsed_key,
    pem_key,
    read,
    read_key,
    server_name,
    uris_of,
    write_new,
)

AUTHORITY_KEY_FILE = "ca.key"
LONGEST_COMMON_NAME = 64
"""RFC 5280, appendix A.1: ub-common-name."""
_SCHEME = "spiffe://"


class Authority:
    """A certificate authority; in memory only, unless it is saved.

    ``valid`` is how long the certificates that it makes are valid, its own among them.
    """

    def __init__(self, federation: str, valid: dt.timedelta) -> None:
        self.federation = federation
        self._valid = valid
        self._last = dt.datetime.max.replace(tzinfo=dt.UTC)
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = f"{federation} authority"[:LONGEST_COMMON_NAME]
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        domain = x509.UniformResourceIdentifier(f"{_SCHEME}{federation}")
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectAlternativeName([domain]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._last = certificate.not_valid_after_utc
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def load(cls, folder: Path, valid: dt.timedelta) -> Authority:
        """The authority that :meth:`save` has written. Raises CertificateError."""
        authority = cls.__new__(cls)
        authority.certificate = read(folder / CA_FILE)
        certificate = parsed_certificate(authority.certificate, folder / CA_FILE)
        path = folder / AUTHORITY_KEY_FILE
        authority._key = parsed_key(read_key(path), path, certificate)
        authority._valid = valid
        authority._name = certificate.subject
        authority._last = certificate.not_valid_after_utc
        match uris_of(certificate):
            case [uri] if uri.startswith(_SCHEME) and "/" not in uri.removeprefix(_SCHEME):
                authority.federation = uri.removeprefix(_SCHEME)
            case uris:
                raise CertificateError(
                    f"{folder / CA_FILE} is no federation's authority: its URIs are {uris}",
                    "make one with `fl certs authority`",
                )
        return authority

    def save(self, folder: Path) -> None:
        """Write certificate and key into ``folder``, which is made if need be.

        Raises CertificateError when it holds an authority or a party already, StorageError.
        """
        write_new(
            folder,
            {AUTHORITY_KEY_FILE: (pem_key(self._key), 0o600), CA_FILE: (self.certificate, 0o644)},
        )

    def aggregator(self, addresses: list[str]) -> Identity:
        """An identity for the aggregator, valid at the IP ``addresses`` as well as by name."""
        names: list[x509.GeneralName] = [x509.DNSName(server_name(self.federation))]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        party = Party(self.federation, "aggregator")
        return self._issue(party, names, ExtendedKeyUsageOID.SERVER_AUTH)

    def silo(self, name: str) -> Identity:
        """An identity for a silo."""
        party = Party(self.federation, "silo", name)
        return self._issue(party, [], ExtendedKeyUsageOID.CLIENT_AUTH)

    def operator(self, name: str) -> Identity:
        """An identity for somebody who submits runs."""
        party = Party(self.federation, "operator", name)
        return self._issue(party, [], ExtendedKeyUsageOID.CLIENT_AUTH)

    def _issue(
        self, party: Party, names: list[x509.GeneralName], usage: x509.ObjectIdentifier
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        common = party.name or party.kind
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        alternatives = [x509.UniformResourceIdentifier(party.uri), *names]
        certificate = (
            self._builder(subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Identity(
            certificate.public_bytes(serialization.Encoding.PEM),
            pem_key(key),
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
            .not_valid_after(min(now + self._valid, self._last))
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
