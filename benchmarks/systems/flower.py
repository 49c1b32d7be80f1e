"""Flower: SuperLink and SuperNodes, each its own processes; and its simulation."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.environments import environment
from benchmarks.processes import (
    ROOT,
    TIMEOUT_SECONDS,
    BenchmarkError,
    Watch,
    as_parent,
    started,
)
from benchmarks.systems.contract import (
    LEFT_OUT,
    Measured,
    Setting,
    Work,
    measured,
    prepare,
    tail,
    written,
)
from benchmarks.systems.ports import HOST, free_ports

APP = ROOT / "benchmarks" / "flower"
REQUIREMENTS = APP / "requirements.txt"
CONNECTION = "bench"


def deployment(work: Work, rounds: int, folder: Path) -> Measured:
    """A SuperLink and a SuperNode a silo, with TLS; ``flwr run`` submits the app."""
    tools, variables = _tools(work, folder)
    ca, certificate, key = _certificates(folder)
    port, *ports = free_ports(work.silos + 1)
    _configure(folder, port, root=ca)
    server_tls = ["--ssl-ca-certfile", ca, "--ssl-certfile", certificate, "--ssl-keyfile", key]
    link = [str(tools / "flower-superlink"), "--host", HOST, "--port", str(port), *server_tls]
    commands = {"server": [*link, "--disable-runtime-dependency-installation"]}
    for i, own in enumerate(ports):
        node = ["--superlink", f"{HOST}:{port}", "--root-certificates", ca, *server_tls]
        node += ["--host", HOST, "--port", str(own)]
        config = f"partition-id={i} num-partitions={work.silos}"
        command = [str(tools / "flower-supernode"), *node, "--node-config", config]
        commands[f"silo {i}"] = command
    return _run(work, rounds, folder, commands, variables, port)


def simulation(work: Work, rounds: int, folder: Path) -> Measured:
    """The simulation runtime: Ray actors as silos, one core an actor."""
    tools, variables = _tools(work, folder)
    (port,) = free_ports(1)
    _configure(folder, port, root=None)
    link = [str(tools / "flower-superlink"), "--simulation", "--insecure"]
    link += ["--host", HOST, "--port", str(port), "--disable-runtime-dependency-installation"]
    federation = f"num-supernodes={work.silos} client-resources-num-cpus=1"

    def name(title: str) -> str | None:
        if title.startswith("ray::"):
            return "silo actor"
        return "ray" if "/ray/core/" in title or "/ray/dashboard" in title else None

    commands = {"server": link}
    return _run(work, rounds, folder, commands, variables, port, federation, name)


def _tools(work: Work, folder: Path) -> tuple[Path, dict[str, str]]:
    tools = environment("flower", REQUIREMENTS).parent
    variables = prepare(work, folder)
    variables |= {
        "PATH": f"{tools}:{variables['PATH']}",
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
    }
    return tools, variables


def _configure(folder: Path, port: int, root: str | None) -> None:
    lines = [f"[superlink]\ndefault = {CONNECTION!r}", f"[superlink.{CONNECTION}]"]
    lines.append(f"address = '{HOST}:{port}'")
    lines.append(f"root-certificates = {root!r}" if root else "insecure = true")
    (folder / "flwr").mkdir()
    (folder / "flwr" / "config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _run(
    work: Work,
    rounds: int,
    folder: Path,
    commands: Mapping[str, list[str]],
    variables: Mapping[str, str],
    port: int,
    federation: str = "",
    name: Callable[[str], str | None] = as_parent,
) -> Measured:
    began = time.time()
    with ExitStack() as stack:
        processes = {
            role: stack.enter_context(started(command, folder / f"{role}.log", variables))
            for role, command in commands.items()
        }
        pids = {process.pid: role for role, process in processes.items()}
        watch = Watch(pids, name)
        stack.callback(watch.end_all)
        _wait_for(port, processes["server"], folder / "server.log")
        config = f"folder='{folder}' silos={work.silos} rounds={rounds}"
        command = ["flwr", "run", str(APP), CONNECTION, "--stream", "--run-config", config]
        if federation:
            command += ["--federation-config", federation]
        log = folder / "flwr.log"
        with started(command, log, variables) as submitted:
            try:
                submitted.wait(TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired as error:
                raise BenchmarkError(f"no end after {TIMEOUT_SECONDS:.0f} s") from error
        if submitted.returncode or not (folder / "times.json").exists():
            server = tail(folder / "server.log")
            raise BenchmarkError(f"flwr run ended {submitted.returncode}:\n{tail(log)}\n{server}")
        watch.stop()
        return measured(work, rounds, began, *written(folder), watch)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        if process.poll() is not None:
            raise BenchmarkError(f"SuperLink ended {process.returncode}:\n{tail(log)}")
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.05)


def _certificates(folder: Path) -> tuple[str, str, str]:
    """Paths of an authority's certificate, of one for loopback that it signed, and its key."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("bench CA", authority_key.public_key(), "bench CA", authority_key)
    certificate = _certificate("localhost", key.public_key(), "bench CA", authority_key)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    contents = {
        "ca.crt": authority.public_bytes(serialization.Encoding.PEM),
        "server.pem": certificate.public_bytes(serialization.Encoding.PEM),
        "server.key": private,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    ca, signed, own = (str(folder / name) for name in contents)
    return ca, signed, own


def _certificate(
    subject: str, key: ec.EllipticCurvePublicKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    now = dt.datetime.now(dt.UTC)
    loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    return (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), True)
        .add_extension(x509.SubjectAlternativeName(loopback), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
        .sign(signer, hashes.SHA256())
    )


SETTINGS = (
    Setting(
        "flower-deployment",
        "SuperLink and SuperNodes, the default (subprocess isolation)",
        "TLS of the SuperLink, silos unauthenticated",
        deployment,
        most_rounds=3,
        once=True,
        cannot={
            "1": LEFT_OUT,
            "64": "not run: 64 SuperNodes, each with a SuperExec and a ClientApp, take 25 GB and "
            "20 minutes to start",
        },
    ),
    Setting(
        "flower-simulation",
        "simulation runtime (Ray), one core a silo",
        "none, in one machine's memory",
        simulation,
        once=True,
    ),
)
