"""Is there a cluster? Asked before anything is made: the provider itself would tell late, and long.

Follows what kubectl and Pulumi's provider do with a kubeconfig, as far as the server's address.
"""

from __future__ import annotations

import base64
import http.client
import os
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import yaml

from fl_core.errors import FlError, nearest
from infra.data import ROOT

SECONDS = 5.0
"""For each step: connect, TLS handshake, answer."""
VARIABLE = "KUBECONFIG"
_PORTS = {"http": 80, "https": 443}
_ANOTHER = f"name another file with {VARIABLE} or `pulumi config set kubeconfig FILE`"


class ClusterError(FlError):
    """A kubeconfig that cannot be used, or a cluster that does not answer."""

    title = "cluster"


@dataclass(frozen=True)
class _Server:
    """A cluster as a context of a kubeconfig names it."""

    context: str
    url: SplitResult
    entry: Mapping[str, Any]
    folder: Path
    """What relative paths in the kubeconfig are relative to."""


def kubeconfig(configured: str | None) -> str | None:
    """The kubeconfig to give to the provider; None for the one in the home folder.

    Raises ClusterError where the environment names several: the provider takes one.
    """
    named = configured or os.environ.get(VARIABLE)
    if not named:
        return None
    if not configured and os.pathsep in named:
        raise ClusterError(
            f"{VARIABLE} names more than one file: {named}",
            f"name one of them in {VARIABLE} or with `pulumi config set kubeconfig FILE`",
        )
    return str(ROOT / Path(named).expanduser())


def check(path: str | None, context: str | None) -> None:
    """Raise ClusterError unless the cluster answers, with whatever status.

    ``path`` is what :func:`kubeconfig` gave; ``context`` None means the current one.
    """
    file = Path(path) if path else Path.home() / ".kube" / "config"
    if path is None and not file.exists() and "KUBERNETES_SERVICE_HOST" in os.environ:
        return  # in a pod, whose own service account the provider takes
    server = _server(file, context)
    if server.url.scheme not in _PORTS or not server.url.hostname:
        raise ClusterError(
            f"{file}: the server of context {server.context!r} is {server.url.geturl()!r}",
            "it must be an address such as https://HOST:PORT",
        )
    _ask(file, server)


def _server(file: Path, context: str | None) -> _Server:
    content = _content(file)
    name = context or content.get("current-context")
    if not name:
        raise ClusterError(
            f"{file} has no current context",
            "choose one: `kubectl config use-context NAME` or `pulumi config set context NAME`",
        )
    contexts = _named(content, "contexts", "context")
    if name not in contexts:
        remedy = nearest(str(name), list(contexts))
        raise ClusterError(f"{file} has no context {name!r}", f"{remedy}; or {_ANOTHER}")
    clusters = _named(content, "clusters", "cluster")
    entry = clusters.get(contexts[name].get("cluster"))
    if entry is None or not isinstance(entry.get("server"), str):
        raise ClusterError(
            f"{file}: context {name!r} leads to no cluster with a server",
            f"correct the file, or {_ANOTHER}",
        )
    return _Server(str(name), urlsplit(entry["server"]), entry, file.parent)


def _content(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ClusterError(
            f"there is no kubeconfig {file}",
            f"start a cluster (such as `kind create cluster`), or {_ANOTHER}",
        ) from error
    except OSError as error:
        raise ClusterError(f"cannot read {file}: {error.strerror}", _ANOTHER) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ClusterError(f"{file} is not YAML", _ANOTHER) from error
    if not isinstance(content, dict):
        raise ClusterError(f"{file} is no kubeconfig", _ANOTHER)
    return content


def _named(content: Mapping[str, Any], kind: str, inner: str) -> dict[Any, dict[str, Any]]:
    """A kubeconfig's list of pairs of name and entry."""
    listed = content.get(kind)
    return {
        one.get("name"): one[inner]
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and isinstance(one.get(inner), dict)
    }


def _ask(file: Path, server: _Server) -> None:
    """Ask for the server's version; what it answers does not matter."""
    where = f"the cluster of context {server.context!r} ({server.url.geturl()})"
    running = "is it running, and is this machine allowed to reach it?"
    host = str(server.url.hostname)
    try:
        with _connected(server) as connection:
            if server.url.scheme == "https":
                name = server.entry.get("tls-server-name") or host
                with _trusting(file, server).wrap_socket(connection, server_hostname=name) as tls:
                    said = _said(tls, server)
            else:
                said = _said(connection, server)
    except ssl.SSLCertVerificationError as error:
        raise ClusterError(
            f"{where} shows a certificate that {file} does not trust: {error.verify_message}",
            "was the cluster made anew? fetch its kubeconfig again "
            "(such as `kind export kubeconfig`)",
        ) from error
    except socket.gaierror as error:
        raise ClusterError(f"{where} has a name that leads nowhere: {host}", running) from error
    except TimeoutError as error:
        raise ClusterError(f"{where} has not answered in {SECONDS:.0f} s", running) from error
    except (OSError, http.client.HTTPException) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise ClusterError(f"{where} does not answer: {text}", running) from error
    if not said.startswith(b"HTTP/"):
        raise ClusterError(
            f"{where} does not speak HTTP", f"correct the server's address, or {_ANOTHER}"
        )


def _connected(server: _Server) -> socket.socket:
    """A connection to the server, through the proxy that the kubeconfig or the system names."""
    host, port = str(server.url.hostname), server.url.port or _PORTS[server.url.scheme]
    proxy = server.entry.get("proxy-url")
    if not proxy and not urllib.request.proxy_bypass(host):
        proxy = urllib.request.getproxies().get(server.url.scheme)
    if not proxy:
        return socket.create_connection((host, port), SECONDS)
    through = urlsplit(str(proxy))
    if through.scheme != "http" or not through.hostname:
        raise ClusterError(
            f"context {server.context!r} needs the proxy {through.hostname}",
            "only proxies with an address such as http://HOST:PORT are taken",
        )
    tunnel = http.client.HTTPConnection(through.hostname, through.port or 80, timeout=SECONDS)
    tunnel.set_tunnel(host, port)
    tunnel.connect()
    return tunnel.sock


def _trusting(file: Path, server: _Server) -> ssl.SSLContext:
    """What Go's TLS, and so kubectl, takes for a server's certificate."""
    if server.entry.get("insecure-skip-tls-verify") is True:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        if data := server.entry.get("certificate-authority-data"):
            pem = base64.b64decode("".join(str(data).split()), validate=True)
            context = ssl.create_default_context(cadata=pem.decode("ascii"))
        elif name := server.entry.get("certificate-authority"):
            context = ssl.create_default_context(cafile=str(server.folder / str(name)))
        else:
            context = ssl.create_default_context()
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"{file}: the certificate authority of context {server.context!r} cannot be read",
            "fetch the cluster's kubeconfig again (such as `kind export kubeconfig`)",
        ) from error
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _said(connection: socket.socket, server: _Server) -> bytes:
    """The first bytes of the answer."""
    connection.settimeout(SECONDS)
    path = f"{server.url.path.rstrip('/')}/version"
    host = server.url.netloc.rpartition("@")[2]
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    connection.sendall(request.encode("ascii"))
    said = b""
    while len(said) < len(b"HTTP/") and (more := connection.recv(64)):
        said += more
    return said
