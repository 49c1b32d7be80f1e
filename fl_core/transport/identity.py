"""Identities: certificates with a SPIFFE URI (https://spiffe.io), in memory and in files.

``spiffe://FEDERATION/aggregator``, ``spiffe://FEDERATION/silo/NAME`` and
``spiffe://FEDERATION/operator/NAME``. Keys are P-256 from the operating system's randomness.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fl_core.errors import CertificateError
from fl_core.files import storing

CERTIFICATE_FILE, KEY_FILE, CA_FILE = "tls.crt", "tls.key", "ca.crt"
"""What a party's folder holds; Kubernetes' names for a Secret of type tls."""
_PARTY = re.compile(r"spiffe://([a-z0-9-]+)/(?:(aggregator)|(silo|operator)/([a-z0-9-]+))")
_NEW = "make another with `fl certs issue`"
_OPEN_TO_ALL = 0o007
_NOT_UNDERSTOOD = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises for bytes that are no such thing, or none that it knows."""


@dataclass(frozen=True)
class Party:
    """Whom a certificate names: ``kind`` is aggregator (without a name), silo or operator."""

    federation: str
    kind: str
    name: str = ""

    @property
    def uri(self) -> str:
        """The party's SPIFFE URI."""
        place = f"{self.kind}/{self.name}" if self.name else self.kind
        return f"spiffe://{self.federation}/{place}"


def party_of(uris: Sequence[str]) -> Party | None:
    """The party that a certificate's URIs name: exactly one must stand there, or it is None."""
    match = _PARTY.fullmatch(uris[0]) if len(uris) == 1 else None
    return Party(match[1], match[2] or match[3], match[4] or "") if match else None


def server_name(federation: str) -> str:
    """The DNS name that silos demand of the aggregator's certificate; no silo's has it."""
    return f"aggregator.{federation}.internal"


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a PEM certificate, in hexadecimal."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True)
class Identity:
    """A party's certificate, its private key, and the authority that it trusts; all PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    authority: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hexadecimal."""
        return fingerprint(self.certificate)

    @property
    def party(self) -> Party:
        """Whom the certificate names. Raises CertificateError when that is no party."""
        return _party(x509.load_pem_x509_certificate(self.certificate), "the certificate")

    @property
    def last(self) -> dt.datetime:
        """When the certificate ceases to be valid."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc

    @classmethod
    def load(cls, folder: Path, *kinds: str) -> Identity:
        """The identity in ``folder``, of a party of one of the ``kinds``.

        Raises CertificateError for files that are missing, do not belong together, may be read by
        everybody, are not valid today, or belong to a party of another kind.
        """
        identity = cls(
            read(folder / CERTIFICATE_FILE), read_key(folder / KEY_FILE), read(folder / CA_FILE)
        )
        party = identity.check(folder)
        if party.kind not in kinds:
            raise CertificateError(
                f"{folder / CERTIFICATE_FILE} is the certificate of {_a(party.kind)}, not of "
                f"{_a(' or '.join(kinds))}",
                "give the folder of the right party with --identity",
            )
        return identity

    def check(self, folder: Path) -> Party:
        """The party, if the three belong together and are valid now.

        ``folder`` is where they come from, for errors. Raises CertificateError.
        """
        certificate = parsed_certificate(self.certificate, folder / CERTIFICATE_FILE)
        parsed_key(self.key, folder / KEY_FILE, certificate)
        authority = parsed_certificate(self.authority, folder / CA_FILE)
        path = folder / CERTIFICATE_FILE
        try:
            certificate.verify_directly_issued_by(authority)
        except (*_NOT_UNDERSTOOD, InvalidSignature) as error:
            raise CertificateError(
                f"{path} was not issued by the authority in {folder / CA_FILE}",
                "take both from the same federation",
            ) from error
        return _party(certificate, str(path))

    def save(self, folder: Path) -> None:
        """Write the identity into ``folder``, for its owner only, whole or not at all.

        Raises CertificateError when there is one already, StorageError.
        """
        write_new(
            folder,
            {
                KEY_FILE: (self.key, 0o600),
                CERTIFICATE_FILE: (self.certificate, 0o644),
                CA_FILE: (self.authority, 0o644),
            },
        )


def parsed_certificate(pem: bytes, path: Path) -> x509.Certificate:
    """The certificate in ``pem``, if it is valid now. Raises CertificateError, naming ``path``."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        certificate.public_key()
    except _NOT_UNDERSTOOD as error:
        raise CertificateError(f"{path} is no certificate in PEM form", _NEW) from error
    now = dt.datetime.now(dt.UTC)
    if now > last:
        raise CertificateError(f"{path} has expired on {last:%Y-%m-%d %H:%M} UTC", _NEW)
    if now < first:
        raise CertificateError(
            f"{path} is valid from {first:%Y-%m-%d %H:%M} UTC on only", "set this machine's clock"
        )
    return certificate


def parsed_key(pem: bytes, path: Path, certificate: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    """The certificate's private key in ``pem``. Raises CertificateError, naming ``path``."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except _NOT_UNDERSTOOD as error:
        raise CertificateError(f"{path} is no private key in PEM form", _NEW) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise CertificateError(f"{path} is no key on the curve P-256", _NEW)
    if key.public_key() != certificate.public_key():
        raise CertificateError(f"{path} is not the key of the certificate beside it", _NEW)
    return key


def pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key in PEM form, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def read_key(path: Path) -> bytes:
    """The file of a private key. Raises CertificateError when everybody may read it."""
    pem = read(path)
    if path.stat().st_mode & _OPEN_TO_ALL:
        raise CertificateError(f"{path} may be read by everybody", f"chmod 600 {path}")
    return pem


def read(path: Path) -> bytes:
    """A file of a party's folder. Raises CertificateError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"{path}: {error.strerror}",
            f"a party's folder holds {CERTIFICATE_FILE}, {KEY_FILE} and {CA_FILE}: "
            "see `fl certs --help`",
        ) from error


def write_new(folder: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
    """Write files of given content and mode, none of which may be there yet; all of them or none.

    ``folder`` is made if need be, for its owner only. Raises CertificateError, StorageError.
    """
    with storing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made: list[Path] = []
    try:
        for name, (data, mode) in files.items():
            path = folder / name
            with storing(path):
                made += _write_one(path, data, mode)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def _write_one(path: Path, data: bytes, mode: int) -> list[Path]:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise CertificateError(
            f"{path} exists already", "choose another folder, or remove what it holds"
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return [path]


def uris_of(certificate: x509.Certificate) -> list[str]:
    """The URIs that a certificate names; none where its names cannot be read."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (*_NOT_UNDERSTOOD, x509.ExtensionNotFound, x509.DuplicateExtension):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _party(certificate: x509.Certificate, what: str) -> Party:
    uris = uris_of(certificate)
    party = party_of(uris)
    if party is None:
        raise CertificateError(
            f"{what} names no party of a federation: its URIs are {uris}",
            "it must name one, such as spiffe://FEDERATION/silo/NAME: see `fl certs issue`",
        )
    return party


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'ao' else 'a'} {kind}"
