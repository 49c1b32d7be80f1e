"""The federation's certificate authority and its parties' certificates, made by Pulumi.

As `fl certs` makes them: one SPIFFE URI a certificate, keys ECDSA on P-256. The authority's key is
in Pulumi's state only, encrypted; it never reaches a cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_tls as tls

from infra import names

OPERATOR = "operator"
HOURS_A_DAY = 24
# Nothing is renewed but by a `pulumi up`: the spans before the end are those in which there will
# surely be one. A lost key is worth a certificate's days at most, hence one year.
PARTY_DAYS, PARTY_RENEWED_BEFORE = 365, 90
# A new authority means new certificates and restarts for all, hence ten years. It is renewed early
# enough that no certificate that it has signed outlives it.
AUTHORITY_DAYS, AUTHORITY_RENEWED_BEFORE = 3650, 400


@dataclass(frozen=True)
class Identity:
    """A party's certificate, its key (a secret), and the authority's certificate; all PEM."""

    certificate: pulumi.Output[str]
    key: pulumi.Output[str]
    authority: pulumi.Output[str]

    @property
    def files(self) -> Mapping[str, pulumi.Output[str]]:
        """What `fl` looks for in the folder that --identity names."""
        return {"tls.crt": self.certificate, "tls.key": self.key, "ca.crt": self.authority}

    @property
    def as_secret(self) -> pulumi.Output[Mapping[str, str]]:
        """The same as one secret, which `fl certs save` reads as JSON."""
        files: pulumi.Output[Mapping[str, str]] = pulumi.Output.all(**self.files)
        return pulumi.Output.secret(files)

    @property
    def fingerprint(self) -> pulumi.Output[str]:
        """Changes with the certificates, and says nothing of the key."""
        both = pulumi.Output.all(self.certificate, self.authority)
        return pulumi.Output.unsecret(
            both.apply(lambda pems: hashlib.sha256("".join(pems).encode()).hexdigest())
        )


class Authority(pulumi.ComponentResource):
    """A certificate authority that signs parties' certificates, and no other authority's."""

    def __init__(
        self, federation: str, opts: pulumi.ResourceOptions, *, protect: bool = False
    ) -> None:
        """``protect`` the authority itself; certificates come and go."""
        super().__init__("fl-silos:infra:Authority", "authority", None, opts)
        self._federation = federation
        self._inside = pulumi.ResourceOptions(parent=self)
        kept = pulumi.ResourceOptions(parent=self, protect=protect)
        self._key = _private_key("authority", kept).private_key_pem
        certificate = tls.SelfSignedCert(
            "authority",
            private_key_pem=self._key,
            subject=tls.SelfSignedCertSubjectArgs(common_name=f"{federation} authority"),
            is_ca_certificate=True,
            max_path_length=0,
            allowed_uses=["cert_signing", "crl_signing"],
            set_subject_key_id=True,
            set_authority_key_id=True,
            validity_period_hours=AUTHORITY_DAYS * HOURS_A_DAY,
            early_renewal_hours=AUTHORITY_RENEWED_BEFORE * HOURS_A_DAY,
            opts=self._inside,
        )
        self.certificate = certificate.cert_pem
        self.register_outputs({})

    def aggregator(self, opts: pulumi.ResourceOptions) -> Identity:
        """The aggregator's identity, with the name that silos demand of it."""
        name = names.coordinator(self._federation)
        return self._issue("aggregator", "aggregator", "server_auth", [name], opts)

    def sign(self, name: str, request: pulumi.Input[str]) -> pulumi.Output[str]:
        """The certificate of a silo that has made its own key, for its request."""
        return self._signed(name, request, "client_auth", self._inside).cert_pem

    def silo(self, name: str, opts: pulumi.ResourceOptions) -> Identity:
        """A silo's identity."""
        return self._issue(name, f"silo/{name}", "client_auth", [], opts)

    def operator(self) -> Identity:
        """The identity of whoever submits runs; it is in no cluster."""
        return self._issue(OPERATOR, f"operator/{OPERATOR}", "client_auth", [], self._inside)

    def _issue(
        self,
        name: str,
        party: str,
        use: str,
        dns_names: list[str],
        opts: pulumi.ResourceOptions,
    ) -> Identity:
        # Renewing is replacing: never protected, unless ``opts`` say so themselves.
        opts = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(protect=False), opts)
        key = _private_key(name, opts)
        request = _request(name, key, f"spiffe://{self._federation}/{party}", dns_names, opts)
        certificate = self._signed(name, request.cert_request_pem, use, opts)
        secret = pulumi.Output.secret(key.private_key_pem_pkcs8)
        return Identity(certificate.cert_pem, secret, self.certificate)

    def _signed(
        self, name: str, request: pulumi.Input[str], use: str, opts: pulumi.ResourceOptions
    ) -> tls.LocallySignedCert:
        return tls.LocallySignedCert(
            name,
            cert_request_pem=request,
            ca_private_key_pem=self._key,
            ca_cert_pem=self.certificate,
            allowed_uses=["digital_signature", use],
            set_subject_key_id=True,
            validity_period_hours=PARTY_DAYS * HOURS_A_DAY,
            early_renewal_hours=PARTY_RENEWED_BEFORE * HOURS_A_DAY,
            opts=opts,
        )


class Applicant(pulumi.ComponentResource):
    """A silo's own key, which stays in the silo's own stack, and its request for a certificate."""

    def __init__(self, federation: str, name: str, opts: pulumi.ResourceOptions) -> None:
        super().__init__("fl-silos:infra:Applicant", name, None, opts)
        inside = pulumi.ResourceOptions(parent=self)
        self._key = _private_key(name, inside)
        uri = f"spiffe://{federation}/silo/{name}"
        self.request = _request(name, self._key, uri, [], inside).cert_request_pem
        self.register_outputs({})

    def identity(self, certificate: pulumi.Input[str], authority: pulumi.Input[str]) -> Identity:
        """The silo's identity, once the aggregator has signed the request."""
        return Identity(
            pulumi.Output.from_input(certificate),
            pulumi.Output.secret(self._key.private_key_pem_pkcs8),
            pulumi.Output.from_input(authority),
        )


def _request(
    name: str, key: tls.PrivateKey, uri: str, dns_names: list[str], opts: pulumi.ResourceOptions
) -> tls.CertRequest:
    return tls.CertRequest(
        name,
        private_key_pem=key.private_key_pem,
        subject=tls.CertRequestSubjectArgs(common_name=name),
        uris=[uri],
        dns_names=dns_names or None,
        opts=opts,
    )


def _private_key(name: str, opts: pulumi.ResourceOptions) -> tls.PrivateKey:
    return tls.PrivateKey(name, algorithm="ECDSA", ecdsa_curve="P256", opts=opts)
