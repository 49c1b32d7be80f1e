"""Keys and certificates from the properties of pulumi_tls's resources: no engine, no gRPC."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ipaddress
from collections.abc import Callable
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import EngineError
from .properties import Properties

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Builder = TypeVar("Builder", x509.CertificateBuilder, x509.CertificateSigningRequestBuilder)

CURVES: dict[str, Callable[[], ec.EllipticCurve]] = {
    "P224": ec.SECP224R1,
    "P256": ec.SECP256R1,
    "P384": ec.SECP384R1,
    "P521": ec.SECP521R1,
}
# As the real provider's signatures: the digest fits the curve.
DIGESTS: dict[int, hashes.HashAlgorithm] = {384: hashes.SHA384(), 521: hashes.SHA512()}
KEY_USES = {
    "digital_signature": "digital_signature",
    "content_commitment": "content_commitment",
    "key_encipherment": "key_encipherment",
    "data_encipherment": "data_encipherment",
    "key_agreement": "key_agreement",
    "cert_signing": "key_cert_sign",
    "crl_signing": "crl_sign",
    "encipher_only": "encipher_only",
    "decipher_only": "decipher_only",
}
EXTENDED_USES = {
    "any_extended": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server_auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client_auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code_signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email_protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp_signing": ExtendedKeyUsageOID.OCSP_SIGNING,
}
NAMES = {
    "country": NameOID.COUNTRY_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organizationalUnit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "locality": NameOID.LOCALITY_NAME,
    "province": NameOID.STATE_OR_PROVINCE_NAME,
    "streetAddresses": NameOID.STREET_ADDRESS,
    "postalCode": NameOID.POSTAL_CODE,
    "commonName": NameOID.COMMON_NAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
}


def private_key(inputs: Properties) -> tuple[str, Properties]:
    """A new key: its id and the outputs beside the inputs."""
    algorithm = inputs["algorithm"]
    curve, bits = inputs.get("ecdsaCurve", "P224"), inputs.get("rsaBits", 2048)
    if algorithm == "ECDSA" and curve in CURVES:
        key: Key = ec.generate_private_key(CURVES[curve]())
    elif algorithm == "RSA":
        key = rsa.generate_private_key(65537, bits)
    elif algorithm == "ED25519":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        raise EngineError(f"no key of algorithm {algorithm}, curve {curve}")
    pem, raw = serialization.Encoding.PEM, serialization.Encoding.DER
    private = serialization.PrivateFormat
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    none = serialization.NoEncryption()
    # The form of its algorithm, where that has one of its own.
    own = private.PKCS8 if algorithm == "ED25519" else private.TraditionalOpenSSL
    openssh = curve != "P224" or algorithm != "ECDSA"  # which has no such curve
    public = key.public_key()
    ssh = (
        public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        if openssh
        else b""
    )
    blob = base64.b64decode(ssh.split()[1]) if ssh else b""
    md5 = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    sha256 = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    outputs = {
        "ecdsaCurve": curve,
        "rsaBits": bits,
        "privateKeyPem": key.private_bytes(pem, own, none).decode(),
        "privateKeyPemPkcs8": key.private_bytes(pem, private.PKCS8, none).decode(),
        "privateKeyOpenssh": key.private_bytes(pem, private.OpenSSH, none).decode()
        if openssh
        else "",
        "publicKeyPem": public.public_bytes(pem, spki).decode(),
        "publicKeyOpenssh": f"{ssh.decode()}\n" if ssh else "",
        "publicKeyFingerprintMd5": ":".join(md5[i : i + 2] for i in range(0, 32, 2)) if ssh else "",
        "publicKeyFingerprintSha256": f"SHA256:{sha256}" if ssh else "",
    }
    # An id, not a signature: as the real provider's.
    return hashlib.sha1(public.public_bytes(raw, spki), usedforsecurity=False).hexdigest(), outputs


def cert_request(inputs: Properties) -> tuple[str, Properties]:
    """A signing request, signed with the inputs' key."""
    key = _key(inputs, "privateKeyPem")
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(inputs))
    request = _with_san(builder, inputs).sign(key, _digest(key))
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    identity = hashlib.sha1(pem.encode(), usedforsecurity=False).hexdigest()
    return identity, {"certRequestPem": pem, "keyAlgorithm": _algorithm(key)}


def self_signed_cert(inputs: Properties) -> tuple[str, Properties]:
    """A certificate whose issuer is its subject."""
    key = _key(inputs, "privateKeyPem")
    name = _name(inputs)
    builder = _with_san(x509.CertificateBuilder().subject_name(name).issuer_name(name), inputs)
    authority = (
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        if inputs.get("setAuthorityKeyId")
        else None
    )
    identity, outputs = _signed(builder, key.public_key(), key, inputs, authority)
    return identity, outputs | {"keyAlgorithm": _algorithm(key)}


def locally_signed_cert(inputs: Properties) -> tuple[str, Properties]:
    """A certificate for a signing request: its subject and names, the authority's signature."""
    ca_key = _key(inputs, "caPrivateKeyPem")
    ca = x509.load_pem_x509_certificate(inputs["caCertPem"].encode())
    request = x509.load_pem_x509_csr(inputs["certRequestPem"].encode())
    if not request.is_signature_valid:
        raise EngineError("the signing request's signature is not that of its key")
    builder = x509.CertificateBuilder().subject_name(request.subject).issuer_name(ca.subject)
    for extension in request.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            builder = builder.add_extension(extension.value, extension.critical)
    try:
        authority_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id)
    except x509.ExtensionNotFound:
        authority = None
    identity, outputs = _signed(builder, request.public_key(), ca_key, inputs, authority)
    return identity, outputs | {"caKeyAlgorithm": _algorithm(ca_key)}


def ready_for_renewal(outputs: Properties, early_hours: float, now: dt.datetime) -> bool:
    """Whether a certificate ends within its early hours."""
    end = dt.datetime.fromisoformat(outputs["validityEndTime"])
    return now >= end - dt.timedelta(hours=early_hours)


def _signed(
    builder: x509.CertificateBuilder,
    public: Any,
    key: Key,
    inputs: Properties,
    authority: x509.AuthorityKeyIdentifier | None,
) -> tuple[str, Properties]:
    """The certificate's serial number, and the outputs of both kinds of certificate."""
    uses = inputs["allowedUses"]
    unknown = [use for use in uses if use not in KEY_USES and use not in EXTENDED_USES]
    if unknown:
        raise EngineError(f"this test double knows no use {unknown[0]}")
    is_ca = bool(inputs.get("isCaCertificate"))
    # Only a CA may have one; -1 stands for none.
    length = inputs.get("maxPathLength", -1)
    start = dt.datetime.now(dt.UTC).replace(microsecond=0)
    end = start + dt.timedelta(hours=inputs["validityPeriodHours"])
    serial = x509.random_serial_number()
    builder = (
        builder.public_key(public).serial_number(serial).not_valid_before(start)
    ).not_valid_after(end)
    flags = {flag: use in uses for use, flag in KEY_USES.items()}
    if any(flags.values()):
        builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    extended = [EXTENDED_USES[use] for use in uses if use in EXTENDED_USES]
    if extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    constraint = x509.BasicConstraints(is_ca, length if is_ca and length >= 0 else None)
    builder = builder.add_extension(constraint, critical=True)
    if inputs.get("setSubjectKeyId") or is_ca:
        identifier = x509.SubjectKeyIdentifier.from_public_key(public)
        builder = builder.add_extension(identifier, critical=False)
    if authority is not None:
        builder = builder.add_extension(authority, critical=False)
    certificate = builder.sign(key, _digest(key))
    outputs: Properties = {
        "certPem": certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "validityStartTime": start.isoformat(),
        "validityEndTime": end.isoformat(),
    }
    early = inputs.get("earlyRenewalHours", 0)
    return str(serial), outputs | {"readyForRenewal": ready_for_renewal(outputs, early, start)}


def _with_san(builder: Builder, inputs: Properties) -> Builder:
    names: list[x509.GeneralName] = [
        *map(x509.DNSName, inputs.get("dnsNames", [])),
        *(x509.IPAddress(ipaddress.ip_address(text)) for text in inputs.get("ipAddresses", [])),
        *map(x509.UniformResourceIdentifier, inputs.get("uris", [])),
    ]
    if not names:
        return builder
    critical = not inputs.get("subject")
    return builder.add_extension(x509.SubjectAlternativeName(names), critical)


def _name(inputs: Properties) -> x509.Name:
    subject = inputs.get("subject", {})
    parts = []
    for key, oid in NAMES.items():
        values = subject.get(key, [])
        parts += [
            x509.NameAttribute(oid, v) for v in ([values] if isinstance(values, str) else values)
        ]
    return x509.Name(parts)


def _key(inputs: Properties, name: str) -> Key:
    pem = inputs.get(name)
    if pem is None:
        raise EngineError(f"this test double needs {name}: it knows no write-only properties")
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except ValueError as error:
        raise EngineError(f"{name} is no private key in PEM") from error
    if not isinstance(key, Key):
        raise EngineError(f"{name} is of an algorithm that is not RSA, ECDSA or ED25519")
    return key


def _algorithm(key: Key) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "RSA"
    return "ECDSA" if isinstance(key, ec.EllipticCurvePrivateKey) else "ED25519"


def _digest(key: Key) -> hashes.HashAlgorithm | None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    return DIGESTS.get(key.key_size, hashes.SHA256())
