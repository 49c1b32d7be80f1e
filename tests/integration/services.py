"""A coordinator, agents and operators as processes, by hand, on loopback."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fl_core import plugins as plugin_loader
from fl_core import runs
from fl_core import spec as run_spec
from fl_core.datasets import heart_disease
from fl_core.service.operator import Operator
from fl_core.transport.authority import Authority
from tests.integration.conftest import PROBE, Outcome, children_of, spec

FEDERATION = "trial"
WAIT = 150
HOSPITALS = Path(heart_disease.__file__).parent
TWO = ("cleveland", "hungary")
ASSEMBLY_SECONDS = 3
"""How long a coordinator with the model ``probe`` waits for all silos of a run."""
T = Any


def write(folder: Path, **changes: object) -> Path:
    """A small run file of two hospitals."""
    path = folder / "run.yaml"
    content = spec(**({"silos": list(TWO)} | changes))
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def probe(folder: Path, fault: str = "", pause: float = 0, **changes: object) -> Path:
    """A run file with a model that does wrong what ``fault`` says; a fit takes ``pause`` s."""
    params = {"fault": fault, "fault_round": 1, "pause": pause}
    return write(folder, model={"name": "probe", "params": params}, **changes)


def _probe() -> str:
    """The module of the model ``probe`` for services: its state tells each fit from any other."""
    text = textwrap.dedent(PROBE)
    for old, new in (
        ("fault_round: int = 2", "fault_round: int = 2; pause: float = 0"),
        (
            "loss = 0.5",
            "__import__('time').sleep(600 if fault == 'waits' else self.params.pause); "
            "w = w + np.random.default_rng(context.seed).random(3, dtype=np.float32); "
            "loss = 0.5",
        ),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text + (
        "import sys\n"
        "if coordinator := sys.modules.get('fl_core.service.coordinator'):\n"
        f"    coordinator.ASSEMBLY_SECONDS = {ASSEMBLY_SECONDS}\n"
    )


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def roles_of(pid: int) -> dict[str, int]:
    """The role processes below ``pid``, and of each the process' id: ``fl silo NAME (RUN)``."""
    found = {}
    for child in children_of(pid):
        try:
            name = Path(f"/proc/{child}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name.startswith((b"fl silo", b"fl aggregator")):
            found[name.decode().strip("\0")] = child
    return found


def wait_for(condition: Callable[[], T], what: str, seconds: float = WAIT) -> T:
    """The first true value of ``condition``; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)
    return found


def free_ports(count: int) -> int:
    """The first of ``count`` ports in a row that nobody holds."""
    while True:
        with ExitStack() as stack, socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                for i in range(1, count):
                    other = stack.enter_context(socket.socket())
                    other.bind(("127.0.0.1", port + i))
            except (OSError, OverflowError):
                continue
            return port


@dataclass
class Service:
    """A service's process and its log."""

    process: subprocess.Popen[bytes]
    path: Path
    health: int

    def log(self) -> str:
        """What it has said so far."""
        return self.path.read_text()

    def wait_log(self, text: str) -> None:
        """Wait until it has said ``text``."""
        wait_for(lambda: text in self.log(), f"{text!r} in:\n{self.log()}")

    def ask(self, question: str) -> tuple[int, str]:
        """Status and text of its answer to ``/healthy`` or ``/ready``."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}{question}") as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode().strip()
        except urllib.error.URLError:
            return 0, ""

    @property
    def ended(self) -> bool:
        """Whether its process has."""
        return self.process.poll() is not None

    def roles(self) -> dict[str, int]:
        """Its role processes, by what they call themselves, and their ids."""
        return roles_of(self.process.pid)

    def signal_role(self, name: str, number: int) -> None:
        """Signal the role that calls itself ``name``, once it is there."""
        pid = wait_for(lambda: self.roles().get(name), f"{name!r} among {self.roles()}")
        os.kill(pid, number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it, wait for its end, and give its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(WAIT)


@dataclass
class Services:
    """A federation in ``folder``."""

    folder: Path
    slots: int = 1
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.authority = Authority(FEDERATION, dt.timedelta(hours=1))
        self.authority.aggregator([]).save(self.folder / "aggregator")
        ann = self.authority.operator("ann")
        ann.save(self.folder / "ann")
        self.port = free_ports(1 + self.slots)
        self.operator = Operator(ann, f"127.0.0.1:{self.port}")
        self.started: list[Service] = []
        self.now: dict[str, Service] = {}
        """The services that were started last, by silo or as ``coordinator``."""
        self._count = 0

    def with_probe(self) -> Services:
        """Processes that are started from now on have the model ``probe``."""
        site = self.folder / "site"
        info = site / "probe-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[fl_core]\nprobe = probe_of_services\n")
        (site / "probe_of_services.py").write_text(_probe())
        self.environment["PYTHONPATH"] = str(site)
        return self

    def up(self, *silos: str) -> Services:
        """See to it that the coordinator and these silos' agents run."""
        down = [name for name in silos if name not in self.now or self.now[name].ended]
        for name in down:
            self.agent(name)
        if "coordinator" not in self.now or self.now["coordinator"].ended:
            self.coordinator()
        wait_for(lambda: set(silos) <= self.connected(), f"{silos} to be connected")
        return self

    def connected(self) -> set[str]:
        """The silos that are."""
        return {silo["silo"] for silo in self.status()["silos"] if silo["connected"]}

    def coordinator(self, *options: str) -> Service:
        """Start the coordinator, and wait until it listens."""
        service = self._start(
            "coordinator",
            *("--identity", "aggregator", "--port", str(self.port), "--slots", str(self.slots)),
            *options,
        )
        wait_for(lambda: service.ask("/ready")[0] == 200 or service.process.poll(), "coordinator")
        assert service.process.poll() is None, service.log()
        self.now["coordinator"] = service
        return service

    def agent(self, silo: str, data: Path | None = None, **environment: str) -> Service:
        """Start a silo's agent on a folder with the hospital's own rows, or on ``data``.

        ``environment``: variables of this agent alone.
        """
        identity = self.folder / silo
        if not identity.exists():
            self.authority.silo(silo).save(identity)
        if data is None:
            data = self.folder / "data" / silo
            data.mkdir(parents=True, exist_ok=True)
            shutil.copy(HOSPITALS / f"{silo}.csv", data)
        self.now[silo] = self._start(
            "agent",
            *("--coordinator", f"127.0.0.1:{self.port}", "--identity", silo),
            *("--data", str(data), "--folder", f"agents/{silo}"),
            **environment,
        )
        return self.now[silo]

    def ready(self, *services: Service) -> None:
        """Wait until all of them say that they are ready."""
        for service in services:
            wait_for(lambda service=service: service.ask("/ready") == (200, "ready"), service.log())

    def fl(self, *arguments: str | Path, identity: str = "ann", timeout: float = WAIT) -> Outcome:
        """An operator's command."""
        done = subprocess.run(
            [sys.executable, "-m", "fl_core.cli", *(str(a) for a in arguments)],
            cwd=self.folder,
            env=os.environ
            | self.environment
            | {"FL_COORDINATOR": f"127.0.0.1:{self.port}", "FL_IDENTITY": identity},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def submit(self, file: Path, *settings: str) -> str:
        """Submit a run file, as `fl submit` does; gives the run's id."""
        content, source = run_spec.load(file, settings)
        return self.operator.submit(content, source, plugin_loader.load(), file.parent)["run"]

    def status(self) -> dict[str, Any]:
        """What ``fl status`` asks for."""
        return self.operator.status()

    def run(self, run_id: str) -> dict[str, Any]:
        """One run of the status."""
        return next(run for run in self.status()["runs"] if run["run"] == run_id)

    def run_folder(self, run_id: str) -> Path:
        """Where the coordinator has a run."""
        return self.folder / "coordinator" / "runs" / run_id

    def manifest(self, run_id: str) -> dict[str, Any]:
        """The coordinator's manifest of a run."""
        return json.loads((self.run_folder(run_id) / runs.MANIFEST_FILE).read_text())

    def wait_status(self, run_id: str, *wanted: str) -> dict[str, Any]:
        """Wait until a run has one of the statuses."""

        def found() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["status"] in wanted else None

        return wait_for(found, f"{run_id} to be {wanted}")

    def _start(self, kind: str, *options: str, **environment: str) -> Service:
        self._count += 1
        path = self.folder / f"{kind}-{self._count}.log"
        health = free_ports(1)
        with path.open("wb") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "fl_core.cli", kind, *options),
                    *("--health", f"127.0.0.1:{health}"),
                ],
                cwd=self.folder,
                env=os.environ | self.environment | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        service = Service(process, path, health)
        self.started.append(service)
        return service


@contextmanager
def services(folder: Path, slots: int = 1, **environment: str) -> Iterator[Services]:
    """A federation whose processes are gone after the block."""
    found = Services(folder, slots, environment)
    try:
        yield found
    finally:
        for service in found.started:
            if service.process.poll() is None:
                service.process.terminate()
        for service in found.started:
            try:
                service.process.wait(30)
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()
