"""Is there a cluster? Asked before anything is made: the provider itself would tell late, and long.

Follows what kubectl and Pulumi's provider do with a kubeconfig, as far as the server's address.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml

from fl_core.errors import FlError, nearest
from infra.data import ROOT

SECONDS = 5.0
"""For each step: connect, TLS handshake, answer."""
VARIABLE = "KUBECONFIG"
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[\w:-][\w.:%-]*", re.ASCII)
_SECRET = re.compile(r"//[^/]*@")
_ANOTHER = f"name another file with {VARIABLE} or `pulumi config set kubeconfig FILE`"
_CORRECT = f"correct the file, or {_ANOTHER}"


class ClusterError(FlError):
    """A kubeconfig that cannot be used, or a cluster that does not answer."""

    title = "cluster"


@dataclass(frozen=True)
class _Address:
    """Of a server or a proxy; all of it is ASCII, as it is sent."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, text: str) -> _Address:
        """Raises ValueError."""
        url = urlsplit(text)
        if url.scheme not in _PORTS or url.port == 0:
            raise ValueError(text)
        port = url.port or _PORTS[url.scheme]
        path = quote(url.path, safe="/%:@!$&'()*+,;=")
        return cls(url.scheme, _host(url.hostname or ""), port, path)

    @property
    def place(self) -> str:
        """Host and port, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}{self.path}"


@dataclass(frozen=True)
class _Server:
    """A cluster as a context of a kubeconfig names it."""

    context: str
    address: _Address
    name: str
    """What its certificate must be for."""
    proxy: _Address | None
    entry: Mapping[str, Any]
    folder: Path
    """What relative paths in the kubeconfig are relative to."""


def chosen(configured: str | None) -> str | None:
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
    try:
        return str(ROOT / Path(named).expanduser())
    except RuntimeError as error:
        raise ClusterError(f"there is no home folder for {named}", _ANOTHER) from error


def check(path: str | None, context: str | None) -> None:
    """Raise ClusterError unless the cluster answers, with whatever status.

    ``path`` is what :func:`chosen` gave; ``context`` None means the current one.
    """
    file = Path(path) if path else Path.home() / ".kube" / "config"
    if path is None and not file.exists() and "KUBERNETES_SERVICE_HOST" in os.environ:
        return  # in a pod, whose own service account the provider takes
    _ask(file, _server(file, context))


def _server(file: Path, context: str | None) -> _Server:
    """Raises ClusterError for whatever in the file could not be used later."""
    content = _content(file)
    name = context or _name(file, "current-context", content.get("current-context"))
    if not name:
        raise ClusterError(
            f"{file} has no current context",
            "choose one: `kubectl config use-context NAME` or `pulumi config set context NAME`",
        )
    contexts = _named(file, content, "contexts", "context")
    if name not in contexts:
        remedy = nearest(name, list(contexts))
        raise ClusterError(f"{file} has no context {name!r}", f"{remedy}; or {_ANOTHER}")
    clusters = _named(file, content, "clusters", "cluster")
    cluster = _name(file, f"the cluster of context {name!r}", contexts[name].get("cluster"))
    entry = clusters.get(cluster)
    if entry is None or not isinstance(entry.get("server"), str):
        raise ClusterError(f"{file}: context {name!r} leads to no cluster with a server", _CORRECT)
    try:
        address = _Address.of(entry["server"])
    except ValueError as error:
        raise ClusterError(
            f"{file}: the server of context {name!r} is {_shown(entry['server'])}",
            "it must be an address such as https://HOST:PORT",
        ) from error
    what = f"the tls-server-name of context {name!r}"
    expected = _name(file, what, entry.get("tls-server-name"))
    try:
        expected = _host(expected) if expected else address.host
    except ValueError as error:
        raise ClusterError(f"{file}: {what} is no name: {expected!r:.200}", _CORRECT) from error
    return _Server(name, address, expected, _proxy(file, name, address, entry), entry, file.parent)


def _proxy(
    file: Path, context: str, address: _Address, entry: Mapping[str, Any]
) -> _Address | None:
    """The proxy that the kubeconfig or the system names."""
    named = _name(file, f"the proxy-url of context {context!r}", entry.get("proxy-url"))
    if not named and not urllib.request.proxy_bypass(address.host):
        named = urllib.request.getproxies().get(address.scheme, "")
    if not named:
        return None
    try:
        proxy = _Address.of(named)
    except ValueError:
        proxy = None
    if proxy is None or proxy.scheme != "http":
        raise ClusterError(
            f"{file}: context {context!r} needs the proxy {_shown(named)}",
            "only proxies with an address such as http://HOST:PORT are taken",
        )
    return proxy


def _host(name: str) -> str:
    """A host's name as it is asked for, in ASCII. Raises ValueError, as UnicodeError is one."""
    plain = name.encode("idna").decode("ascii")
    if not _HOST.fullmatch(plain):
        raise ValueError(name)
    return plain


def _shown(address: str) -> str:
    """An address for a message: one line, and without a password."""
    return f"{_SECRET.sub('//', address)!r:.200}"


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


def _named(
    file: Path, content: Mapping[str, Any], kind: str, inner: str
) -> dict[str, dict[str, Any]]:
    """A kubeconfig's list of pairs of name and entry."""
    listed = content.get(kind)
    return {
        _name(file, f"{kind}[{i}].name", one.get("name")): one[inner]
        for i, one in enumerate(listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and isinstance(one.get(inner), dict)
    }


def _name(file: Path, what: str, value: Any) -> str:
    """A name in the file, empty if there is none. Raises ClusterError.

    As kubectl does, it takes as text what YAML reads as a number.
    """
    name = "" if value is None else str(value)
    if isinstance(value, str | int | float | None) and name.isprintable():
        return name
    raise ClusterError(f"{file}: {what} is no name: {value!r:.200}", _CORRECT)


def _ask(file: Path, server: _Server) -> None:
    """Ask for the server's version; what it answers does not matter."""
    where = f"the cluster of context {server.context!r} ({server.address})"
    running = "is it running, and is this machine allowed to reach it?"
    try:
        with _connected(server) as connection:
            if server.address.scheme == "https":
                trust = _trusting(file, server)
                with trust.wrap_socket(connection, server_hostname=server.name) as tls:
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
        host = (server.proxy or server.address).host
        raise ClusterError(f"{where} has a name that leads nowhere: {host}", running) from error
    except TimeoutError as error:
        raise ClusterError(f"{where} has not answered in {SECONDS:.0f} s", running) from error
    except (OSError, http.client.HTTPException) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise ClusterError(f"{where} does not answer: {text}", running) from error
    except (ValueError, TypeError) as error:
        # What _server has let through and a library does not take; UnicodeError is a ValueError.
        raise ClusterError(f"{file}: {where} cannot be asked: {error}", _CORRECT) from error
    if not said.startswith(b"HTTP/"):
        raise ClusterError(
            f"{where} does not speak HTTP", f"correct the server's address, or {_ANOTHER}"
        )


def _connected(server: _Server) -> socket.socket:
    """A connection to the server, through its proxy if it has one."""
    host, port = server.address.host, server.address.port
    if server.proxy is None:
        return socket.create_connection((host, port), SECONDS)
    tunnel = http.client.HTTPConnection(server.proxy.host, server.proxy.port, timeout=SECONDS)
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
    path = f"{server.address.path.rstrip('/')}/version"
    host = server.address.place
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    connection.sendall(request.encode("ascii"))
    said = b""
    while len(said) < len(b"HTTP/") and (more := connection.recv(64)):
        said += more
    return said
