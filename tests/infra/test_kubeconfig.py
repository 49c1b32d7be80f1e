"""A cluster that does not answer is told at once, before anything is made."""

from __future__ import annotations

import base64
import datetime as dt
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from fl_core.transport.authority import Authority
from infra import kubeconfig as cluster
from infra.kubeconfig import ClusterError

from .conftest import Config, kubeconfig
from .recording import record

Write = Callable[..., str]
ANSWER = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a kubeconfig for a server, and give back its path."""

    def to_file(server: str, **entry: Any) -> str:
        file = tmp_path / "kubeconfig"
        file.write_text(yaml.safe_dump(kubeconfig(server, **entry)))
        return str(file)

    return to_file


@contextmanager
def _served(
    answer: bytes | None, context: ssl.SSLContext | None = None
) -> Iterator[tuple[str, int]]:
    """A server that says ``answer`` to each caller, or nothing."""
    over = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                connection = self.request
                connection.settimeout(10)
                if context is not None:
                    connection = context.wrap_socket(connection, server_side=True)
                if answer is None:
                    over.wait(10)
                    return
                connection.recv(1000)
                connection.sendall(answer)
                connection.close()
            except (ssl.SSLError, ConnectionError, TimeoutError):
                pass  # a caller that does not trust the certificate, or says nothing

    with _running(Handler) as address:
        try:
            yield address
        finally:
            over.set()


@contextmanager
def _running(handler: type[socketserver.BaseRequestHandler]) -> Iterator[tuple[str, int]]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield "127.0.0.1", server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("one", dt.timedelta(days=1))


@pytest.fixture
def https(authority: Authority, tmp_path: Path) -> Iterator[str]:
    """An API server with a certificate of the authority, for 127.0.0.1."""
    identity = authority.aggregator(["127.0.0.1"])
    identity.save(tmp_path / "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server" / "tls.crt", tmp_path / "server" / "tls.key")
    with _served(ANSWER, context) as (host, port):
        yield f"https://{host}:{port}"


def _data(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def _told(path: str | None, context: str | None = None) -> str:
    with pytest.raises(ClusterError) as caught:
        cluster.check(path, context)
    assert caught.value.remedy
    line = f"{caught.value.message}; {caught.value.remedy}"
    assert "\n" not in line
    return line


# What answers


def test_any_answer_will_do(write: Write, https: str, authority: Authority):
    cluster.check(
        write(https, **{"certificate-authority-data": _data(authority.certificate)}), None
    )


def test_an_authority_in_a_file_beside_the_kubeconfig_is_found(
    write: Write, https: str, authority: Authority, tmp_path: Path
):
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    cluster.check(write(https, **{"certificate-authority": "ca.pem"}), None)


def test_a_cluster_under_another_name_is_trusted(write: Write, https: str, authority: Authority):
    ca = {"certificate-authority-data": _data(authority.certificate)}
    path = write(https.replace("127.0.0.1", "localhost"), **ca)
    assert "does not trust" in _told(path)
    name = {"tls-server-name": "aggregator.one.internal"}
    cluster.check(write(https.replace("127.0.0.1", "localhost"), **ca, **name), None)


def test_a_cluster_that_is_not_to_be_verified_is_not(write: Write, https: str):
    cluster.check(write(https, **{"insecure-skip-tls-verify": True}), None)


def test_a_proxy_is_used(write: Write, https: str, authority: Authority):
    seen: list[str] = []

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            target = self.rfile.readline().split()[1].decode()
            while self.rfile.readline().strip():
                pass
            seen.append(target)
            host, _, port = target.partition(":")
            with socket.create_connection((host, int(port)), 5) as onward:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=_pass_on, args=(onward, self.request))
                back.start()
                _pass_on(self.request, onward)
                back.join()

    ca = {"certificate-authority-data": _data(authority.certificate)}
    with _running(Proxy) as (host, port):
        cluster.check(write(https, **ca, **{"proxy-url": f"http://{host}:{port}"}), None)
    assert seen == [https.removeprefix("https://")]


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(4096):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side has gone


def test_a_path_is_sent_in_ascii(write: Write):
    with _served(ANSWER) as (host, port):
        cluster.check(write(f"http://{host}:{port}/für alle"), None)


def test_a_host_is_asked_for_in_ascii(write: Write, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    connect = socket.create_connection

    def seen(address: Any, *more: Any) -> socket.socket:
        asked.append(address[0])
        return connect(("127.0.0.1", address[1]), *more)

    monkeypatch.setattr(socket, "create_connection", seen)
    with _served(ANSWER) as (_, port):
        cluster.check(write(f"http://bücher.invalid:{port}"), None)
    assert asked == ["xn--bcher-kva.invalid"]


def test_a_name_that_yaml_reads_as_a_number_is_a_name(api_server: str, tmp_path: Path):
    content = kubeconfig(api_server) | {"current-context": 5}
    content["contexts"][0]["name"] = 5
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(content))
    cluster.check(str(file), None)
    cluster.check(str(file), "5")


def test_in_a_pod_there_is_no_kubeconfig(home: Path, monkeypatch: pytest.MonkeyPatch):
    (home / ".kube" / "config").unlink()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    cluster.check(None, None)


# What does not


def test_a_closed_port(write: Write):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    line = _told(write(f"https://127.0.0.1:{port}"))
    assert line == (
        f"the cluster of context 'here' (https://127.0.0.1:{port}) does not answer: Connection "
        "refused; is it running, and is this machine allowed to reach it?"
    )


def test_the_program_tells_it_before_anything_is_made(federation: Config, write: Write):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(pulumi.RunError, match=r"^the cluster of context 'here' .* refused; is it"):
        record(federation | {"kubeconfig": write(f"https://127.0.0.1:{port}")})


def test_another_authority(write: Write, https: str):
    other = Authority("one", dt.timedelta(days=1))
    path = write(https, **{"certificate-authority-data": _data(other.certificate)})
    line = _told(path)
    assert f"({https}) shows a certificate that {path} does not trust: " in line
    assert "fetch its kubeconfig again" in line


def test_no_authority_is_the_systems(write: Write, https: str):
    assert "does not trust" in _told(write(https))


@pytest.mark.parametrize("data", ["bm90IHBlbQ==", "%%%", 5])
def test_an_authority_that_is_none(write: Write, https: str, data: Any):
    line = _told(write(https, **{"certificate-authority-data": data}))
    assert "the certificate authority of context 'here' cannot be read" in line


def test_silence(write: Write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "SECONDS", 0.2)
    started = time.monotonic()
    with _served(None) as (host, port):
        for scheme in ("http", "https"):
            line = _told(write(f"{scheme}://{host}:{port}"))
            assert "has not answered in" in line
    assert time.monotonic() - started < 5


def test_no_http(write: Write):
    with _served(b"SSH-2.0-OpenSSH_9\r\n") as (host, port):
        assert "does not speak HTTP" in _told(write(f"http://{host}:{port}"))
        assert "does not answer: " in _told(write(f"https://{host}:{port}"))


def test_a_name_that_leads_nowhere(write: Write, monkeypatch: pytest.MonkeyPatch):
    def unknown(*address: Any) -> socket.socket:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    line = _told(write("https://cluster.invalid"))
    assert "has a name that leads nowhere: cluster.invalid; is it running" in line


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://127.0.0.1:1",
        "http://127.0.0.1:999999",
        "http://127.0.0.1:x",
        "http://[::1",
        "http://a..b:1",
        "http://:80",
        "127.0.0.1:1",
        5,
    ],
)
def test_a_proxy_that_cannot_be_used(write: Write, proxy: Any):
    path = write("https://127.0.0.1:1", **{"proxy-url": proxy})
    line = _told(path)
    assert line.startswith(f"{path}: context 'here' needs the proxy {str(proxy)!r}; only proxies")


def test_a_proxy_without_a_port_has_the_schemes(write: Write, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def refused(address: Any, *more: Any) -> socket.socket:
        asked.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refused)
    assert "refused" in _told(write("https://one.invalid", **{"proxy-url": "http://two.invalid"}))
    assert asked == [("two.invalid", 80)]


def test_no_password_is_shown(write: Write):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    proxy = {"proxy-url": "socks5://me:secret@127.0.0.1:1"}
    assert "secret" not in _told(write(f"https://me:secret@127.0.0.1:{port}"))
    assert "secret" not in _told(write("https://me:secret@127.0.0.1:99999"))
    assert "secret" not in _told(write(f"https://127.0.0.1:{port}", **proxy))


@pytest.mark.parametrize("fault", [ValueError, TypeError, UnicodeError])
def test_what_nobody_has_thought_of(
    write: Write, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
):
    def broken(*address: Any) -> socket.socket:
        raise fault("odd")

    monkeypatch.setattr(socket, "create_connection", broken)
    path = write("https://127.0.0.1:1")
    line = _told(path)
    assert line.startswith(f"{path}: the cluster of context 'here' (https://127.0.0.1:1) cannot be")
    assert "odd; correct the file, or name another" in line


# Kubeconfigs


def test_no_kubeconfig(home: Path):
    (home / ".kube" / "config").unlink()
    line = _told(None)
    assert line.startswith(f"there is no kubeconfig {home / '.kube' / 'config'}; start a cluster")
    assert "KUBECONFIG" in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "is not YAML"),
        ("just words", "is no kubeconfig"),
        ("{}", "has no current context; choose one: `kubectl config use-context NAME`"),
        ("current-context: here", "has no context 'here'"),
        (
            "current-context: here\ncontexts: [{name: here, context: {cluster: gone}}]",
            "context 'here' leads to no cluster with a server",
        ),
        ("current-context: [x]", "current-context is no name: ['x']; correct the file, or name"),
        ("current-context: {a: 1}", "current-context is no name: {'a': 1}"),
        ('current-context: "a\\nb"', r"current-context is no name: 'a\nb'"),
        (
            "current-context: here\ncontexts: [{name: [a], context: {cluster: one}}]",
            "contexts[0].name is no name: ['a']",
        ),
        (
            "current-context: here\ncontexts: [{name: here, context: {cluster: [x]}}]",
            "the cluster of context 'here' is no name: ['x']",
        ),
        (
            "current-context: here\ncontexts: [{name: here, context: {cluster: one}}]\n"
            "clusters: [{name: [one], cluster: {server: x}}]",
            "clusters[0].name is no name: ['one']",
        ),
        (
            "current-context: here\ncontexts: [{name: here, context: {cluster: one}}]\n"
            "clusters: [{name: one, cluster: [x]}]",
            "context 'here' leads to no cluster with a server",
        ),
        (
            "current-context: here\ncontexts: [{name: here, context: [x]}]",
            "has no context 'here'",
        ),
        (
            "current-context: here\ncontexts: [{name: 5, context: {}}, {name: x, context: {}}]",
            "has no context 'here'; available: 5, x",
        ),
    ],
)
def test_a_kubeconfig_that_leads_nowhere(tmp_path: Path, content: str, said: str):
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    line = _told(str(file))
    assert line.startswith(str(file))
    assert said in line


def test_a_folder_for_a_kubeconfig(tmp_path: Path):
    assert _told(str(tmp_path)).startswith(f"cannot read {tmp_path}: ")


def test_a_context_that_is_not_there(write: Write, api_server: str):
    line = _told(write(api_server), "hero")
    assert "has no context 'hero'; did you mean 'here'? available: here; or name another" in line


@pytest.mark.parametrize(
    "server",
    [
        "127.0.0.1:6443",
        "ftp://127.0.0.1",
        "https://",
        "https://127.0.0.1:99999",
        "https://127.0.0.1:abc",
        "https://127.0.0.1:-1",
        "https://127.0.0.1:0",
        "https://[::1",
        "https://[zz]:6443",
        "https://a..b:6443",
        "https://.:6443",
        f"https://{'a' * 64}.example",
        "https://a℀b:6443",
        "https://a b:6443",
        "https://a\0b:6443",
        "https://a\ud800b:6443",
        "https://127.0.0.1/\ud800",
    ],
)
def test_a_server_without_an_address(write: Write, server: str):
    path = write(server)
    line = _told(path)
    said = f"{path}: the server of context 'here' is {server!r}; it must be an address such as"
    assert line.startswith(said)


@pytest.mark.parametrize("server", [5, [1], {"a": 1}, None, True])
def test_a_server_that_is_no_text(write: Write, server: Any):
    assert "context 'here' leads to no cluster with a server" in _told(write(server))


@pytest.mark.parametrize("name", ["a..b", ".a", ["a"], "a b", "a" * 64])
def test_a_name_in_certificates_that_is_none(write: Write, https: str, name: Any):
    path = write(https, **{"tls-server-name": name})
    line = _told(path)
    assert line.startswith(f"{path}: the tls-server-name of context 'here' is no name: {name!r}; ")


def test_a_number_for_the_name_in_certificates(write: Write, https: str, authority: Authority):
    ca = {"certificate-authority-data": _data(authority.certificate)}
    assert "does not trust" in _told(write(https, **ca, **{"tls-server-name": 5}))


def test_where_the_kubeconfig_is(monkeypatch: pytest.MonkeyPatch, home: Path):
    assert cluster.chosen(None) is None
    assert cluster.chosen("~/one") == str(home / "one")
    assert cluster.chosen("one") == str(cluster.ROOT / "one")
    monkeypatch.setenv("KUBECONFIG", "/two")
    assert cluster.chosen(None) == "/two"
    assert cluster.chosen("/one") == "/one"


def test_a_home_that_is_not_there():
    with pytest.raises(ClusterError, match="there is no home folder for ~nobody-here/config"):
        cluster.chosen("~nobody-here/config")


def test_two_kubeconfigs_are_one_too_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KUBECONFIG", "/one:/two")
    with pytest.raises(ClusterError, match="names more than one file: /one:/two"):
        cluster.chosen(None)
