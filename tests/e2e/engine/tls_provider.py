"""A provider of keys and certificates, where no installation of Pulumi brings its own.

A test double of ``pulumi-resource-tls``: real keys and certificates, as secret as the real ones.
It does not know write-only properties, encrypted keys, looking up (getCertificate), imports, or the
uses of certificates that only Netscape, Microsoft and IPsec had.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from . import tls_certificates as certificates
from .errors import EngineError
from .properties import (
    UNKNOWN,
    Properties,
    Secret,
    decode,
    encode,
    has_unknown,
    plain,
)
from .provider import Context, Provider, serve_provider, tells_errors

Maker = Callable[[Properties], tuple[str, Properties]]

MAKERS: dict[str, Maker] = {
    "tls:index/privateKey:PrivateKey": certificates.private_key,
    "tls:index/selfSignedCert:SelfSignedCert": certificates.self_signed_cert,
    "tls:index/certRequest:CertRequest": certificates.cert_request,
    "tls:index/locallySignedCert:LocallySignedCert": certificates.locally_signed_cert,
}
SECRET = {
    "privateKeyPem",
    "privateKeyPemPkcs8",
    "privateKeyOpenssh",
    "caPrivateKeyPem",
}
OUTPUTS = {
    "tls:index/privateKey:PrivateKey": """ecdsaCurve rsaBits privateKeyPem privateKeyPemPkcs8
        privateKeyOpenssh publicKeyPem publicKeyOpenssh publicKeyFingerprintMd5
        publicKeyFingerprintSha256""".split(),
    "tls:index/selfSignedCert:SelfSignedCert": """certPem keyAlgorithm readyForRenewal
        validityStartTime validityEndTime""".split(),
    "tls:index/certRequest:CertRequest": "certRequestPem keyAlgorithm".split(),
    "tls:index/locallySignedCert:LocallySignedCert": """certPem caKeyAlgorithm readyForRenewal
        validityStartTime validityEndTime""".split(),
}
# All others replace the resource: a key or certificate cannot be changed.
IN_PLACE = {"earlyRenewalHours"}


class TlsProvider(Provider):
    """Every resource is its inputs and what was made from them."""

    package = "pulumi_tls"

    def Check(
        self, request: provider_pb2.CheckRequest, context: Context
    ) -> provider_pb2.CheckResponse:
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(
        self, request: provider_pb2.DiffRequest, context: Context
    ) -> provider_pb2.DiffResponse:
        old, new = plain(decode(request.old_inputs)), plain(decode(request.news))
        outputs = plain(decode(request.olds))
        changed = sorted(key for key in old | new if old.get(key) != new.get(key))
        replaces = [key for key in changed if key not in IN_PLACE]
        early = new.get("earlyRenewalHours", 0)
        known = "validityEndTime" in outputs and not has_unknown(early)
        now = dt.datetime.now(dt.UTC)
        if known and certificates.ready_for_renewal(outputs, early, now):
            changed.append("readyForRenewal")
            replaces.append("readyForRenewal")
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME
            if changed
            else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=changed,
            replaces=replaces,
        )

    @tells_errors
    def Create(
        self, request: provider_pb2.CreateRequest, context: Context
    ) -> provider_pb2.CreateResponse:
        inputs = decode(request.properties)
        kind = request.urn.split("::")[2].rsplit("$", 1)[-1]
        if kind not in MAKERS:
            raise EngineError(f"this test double knows no {kind}")
        if request.preview:
            made: Properties = dict.fromkeys(OUTPUTS[kind], UNKNOWN)
            return provider_pb2.CreateResponse(properties=encode(_outputs(made | inputs)))
        identity, made = MAKERS[kind](plain(inputs))
        return provider_pb2.CreateResponse(id=identity, properties=encode(_outputs(inputs | made)))

    def Update(
        self, request: provider_pb2.UpdateRequest, context: Context
    ) -> provider_pb2.UpdateResponse:
        # Only what replaces nothing comes here: the outputs stay.
        outputs = decode(request.olds) | decode(request.news)
        return provider_pb2.UpdateResponse(properties=encode(_outputs(outputs)))

    def Read(
        self, request: provider_pb2.ReadRequest, context: Context
    ) -> provider_pb2.ReadResponse:
        # Nothing is anywhere but in the state.
        outputs = decode(request.properties)
        if "validityEndTime" in outputs:
            early = plain(outputs.get("earlyRenewalHours", 0))
            now = dt.datetime.now(dt.UTC)
            outputs["readyForRenewal"] = certificates.ready_for_renewal(outputs, early, now)
        return provider_pb2.ReadResponse(
            id=request.id, properties=encode(_outputs(outputs)), inputs=request.inputs
        )

    def Delete(self, request: provider_pb2.DeleteRequest, context: Context) -> empty_pb2.Empty:
        return empty_pb2.Empty()


def _outputs(properties: Properties) -> Properties:
    """The properties with every key a secret, and what was one before."""
    return {
        key: Secret(plain(value)) if key in SECRET else value for key, value in properties.items()
    }


def main() -> None:
    serve_provider(TlsProvider)
