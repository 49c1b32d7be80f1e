"""The cluster's certificates, made with openssl, and the kubeconfigs that use them."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

from .errors import ClusterError
from .paths import (
    API_SERVER,
    API_SERVER_IP,
    API_SERVICE_IP,
    KUBECONFIG,
    NODE,
    NODE_IP,
    NODE_PKI,
    PKI,
)
from .tools import search_path

DAYS = "30"
CURVE = ("-pkeyopt", "ec_paramgen_curve:P-256")
API_SERVER_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
API_SERVER_IPS = (API_SERVER_IP, NODE_IP, API_SERVICE_IP)

ADMIN = "admin"
CLIENTS = {
    ADMIN: "/O=system:masters/CN=admin",
    "kube-apiserver-kubelet-client": "/O=system:masters/CN=kube-apiserver-kubelet-client",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-proxy": "/CN=system:kube-proxy",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE}",
}
"""Who calls the API server (it calls the kubelet), and as whom."""


def make_pki() -> None:
    """Write every key, certificate and kubeconfig into an empty folder."""
    PKI.mkdir(mode=0o700, parents=True)
    # openssl's own configuration would make every certificate an authority's.
    (PKI / "openssl.cnf").write_text("[req]\ndistinguished_name = names\n[names]\n")
    _certificate("ca", "/CN=cluster", "basicConstraints=critical,CA:TRUE", authority=True)
    names = [f"DNS:{name}" for name in API_SERVER_NAMES] + [f"IP:{ip}" for ip in API_SERVER_IPS]
    _certificate(
        "kube-apiserver",
        "/CN=kube-apiserver",
        f"subjectAltName={','.join(names)}",
        "extendedKeyUsage=serverAuth",
    )
    for name, subject in CLIENTS.items():
        _certificate(name, subject, "extendedKeyUsage=clientAuth")
        _write_secret(PKI / f"{name}.kubeconfig", _kubeconfig(_paths(name)))
    _write_secret(KUBECONFIG, _kubeconfig(_contents(ADMIN)))
    key, public = str(PKI / "service-accounts.key"), str(PKI / "service-accounts.pub")
    _openssl("genpkey", "-algorithm", "EC", *CURVE, "-out", key)
    _openssl("pkey", "-in", key, "-pubout", "-out", public)


def _certificate(name: str, subject: str, *extensions: str, authority: bool = False) -> None:
    files = ["-keyout", str(PKI / f"{name}.key"), "-out", str(PKI / f"{name}.crt")]
    signer = [] if authority else ["-CA", str(PKI / "ca.crt"), "-CAkey", str(PKI / "ca.key")]
    added = [part for extension in extensions for part in ("-addext", extension)]
    _openssl(
        *("req", "-x509", "-config", str(PKI / "openssl.cnf"), "-days", DAYS),
        *("-newkey", "ec", *CURVE, "-nodes", "-subj", subject),
        *(*files, *signer, *added),
    )


def _openssl(*arguments: str) -> None:
    environment = {"PATH": search_path()}
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, env=environment, umask=0o077
    )
    if done.returncode:
        raise ClusterError(f"openssl {arguments[0]} failed: {' '.join(done.stderr.split())}")


def _paths(name: str) -> tuple[dict[str, str], dict[str, str]]:
    """The authority and the client's certificate as the node's own programs find them."""
    return {"certificate-authority": str(NODE_PKI / "ca.crt")}, {
        "client-certificate": str(NODE_PKI / f"{name}.crt"),
        "client-key": str(NODE_PKI / f"{name}.key"),
    }


def _contents(name: str) -> tuple[dict[str, str], dict[str, str]]:
    """The same, for a kubeconfig that holds everything."""

    def data(file: str) -> str:
        return base64.b64encode((PKI / file).read_bytes()).decode()

    return {"certificate-authority-data": data("ca.crt")}, {
        "client-certificate-data": data(f"{name}.crt"),
        "client-key-data": data(f"{name}.key"),
    }


def _kubeconfig(credentials: tuple[dict[str, str], dict[str, str]]) -> str:
    authority, user = credentials
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": {"server": API_SERVER} | authority}],
            "users": [{"name": "local", "user": user}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
            "current-context": "local",
        },
        indent=2,
    )


def _write_secret(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)
