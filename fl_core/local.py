"""A whole federation on one machine: an aggregator process and a process for each silo."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from fl_core import launch, report, runs
from fl_core.courier_process import CourierProcess
from fl_core.errors import FlError, Interrupted, RoleError
from fl_core.files import storing
from fl_core.job import Job
from fl_core.launch import RoleProcess
from fl_core.plugins import Plugins, described
from fl_core.role import RoleConfig
from fl_core.runs import Run
from fl_core.spec import Choice
from fl_core.transport.authority import Authority
from fl_core.transport.identity import Identity

FEDERATION = "local"
HOST = "127.0.0.1"
LAST_WORDS_SECONDS = 2.0
"""How long the other roles may go on after one has failed, so that the first cause is known."""

OnEvent = Callable[[dict[str, Any]], None]


def warm_up(preload: Sequence[str] = ()) -> None:
    """Start the process that role processes are forked from; it imports FedML while we go on.

    Every role would otherwise spend seconds importing the same modules. ``preload`` names more of
    them.
    """
    launch.prepare()
    from multiprocessing import forkserver, resource_tracker

    _context().set_forkserver_preload([*preload, "fl_core.fork_server"])
    # A Ctrl-C reaches every process of the terminal; what it means is for this one to decide. And
    # no module is to come from the folder in which `fl` happens to be called.
    safe_path = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        resource_tracker.ensure_running()  # before SIGINT is blocked: its start unblocks that
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    finally:
        os.environ.pop("PYTHONSAFEPATH")
        if safe_path is not None:
            os.environ["PYTHONSAFEPATH"] = safe_path


def run(
    job: Job,
    plugins: Plugins,
    run_id: str,
    folder: Path,
    spec_folder: Path,
    port: int,
    on_event: OnEvent,
    trackers: tuple[Choice, ...] = (),
) -> Run:
    """Run a job to its end in ``folder``, which must not exist, and give the finished run.

    ``on_event`` gets every role's events, in this process and thread, and those of the delivery to
    ``trackers``. Raises the FlError that ended the run; the folder then holds what there is, with
    the reason in its manifest.
    """
    authority = Authority(FEDERATION, valid=dt.timedelta(days=7))
    identities = {silo: authority.silo(silo) for silo in job.spec.silo_names}
    aggregator = authority.aggregator([HOST])
    fingerprints = {"aggregator": aggregator.fingerprint} | {
        silo: identity.fingerprint for silo, identity in identities.items()
    }
    manifest = runs.describe(run_id, job.spec, job.schema, plugins, fingerprints)
    federation = _Federation(job, run_id, folder, spec_folder, on_event, trackers)
    error: FlError | None = FlError("the run ended abruptly", "this is a bug of fl-core")
    start = time.monotonic()
    with _Interrupts() as interrupts:
        runs.create(folder, manifest)
        try:
            federation.run(aggregator, identities, port)
            error = None
        except FlError as known:
            error = known
        except KeyboardInterrupt:
            error = Interrupted("the run was interrupted", f"what there is stands in {folder}")
        except BrokenPipeError:
            error = Interrupted("what read the output is gone", f"what there is stands in {folder}")
        except Exception as unknown:
            error = FlError(described(unknown), "this is a bug of fl-core, or of what called it")
            raise
        finally:
            interrupts.ignore()
            federation.stop()
            manifest |= {"rows": federation.rows, "seconds": round(time.monotonic() - start, 3)}
            with federation.delivered():
                finished = report.conclude(folder, manifest, error)
    if error is not None:
        raise error
    return finished


class _Interrupts:
    """Within the block, the first signal to end is a KeyboardInterrupt, others are ignored."""

    _signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __enter__(self) -> _Interrupts:
        self._before = [signal.signal(number, self._interrupt) for number in self._signals]
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in zip(self._signals, self._before, strict=True):
            signal.signal(number, handler)

    def _interrupt(self, signum: int, frame: object) -> None:
        self.ignore()
        raise KeyboardInterrupt

    def ignore(self) -> None:
        """Ignore them from now on: what is left to do is short and must be whole."""
        for number in self._signals:
            signal.signal(number, signal.SIG_IGN)


class _Federation:
    """The role processes of one run."""

    def __init__(
        self,
        job: Job,
        run_id: str,
        folder: Path,
        spec_folder: Path,
        on_event: OnEvent,
        trackers: tuple[Choice, ...],
    ) -> None:
        self._job = job
        self._run_id = run_id
        self._folder = folder
        self._spec_folder = spec_folder
        self._on_event = on_event
        self._context = _context()
        self._trackers = trackers
        self._courier: CourierProcess | None = None
        self._roles: list[RoleProcess] = []
        self.rows: dict[str, Any] = {}

    def run(self, aggregator: Identity, identities: dict[str, Identity], port: int) -> None:
        """Start all roles and follow them to their end. Raises the first FlError."""
        if self._trackers:
            with suppress(OSError):  # no process: what is missing is told at the end, as ever
                self._courier = CourierProcess(self._folder, False, self._context)
        self._start(None, self._folder, aggregator, port)
        for event in self._follow():
            if event["event"] == "listening":
                for silo, identity in identities.items():
                    folder = self._folder / runs.SILOS_FOLDER / silo
                    with storing(folder):
                        folder.mkdir(parents=True)
                    self._start(silo, folder, identity, event["port"])
            elif event["event"] == "rows":
                self.rows = event["rows"]
            self._on_event(event)
        errors = {role.name: role.error for role in self._roles if role.error is not None}
        if errors:
            raise _cause(errors)

    def _start(self, silo: str | None, folder: Path, identity: Identity, port: int) -> None:
        config = RoleConfig(
            self._run_id,
            self._job.spec,
            self._spec_folder,
            folder,
            FEDERATION,
            identity,
            HOST,
            port,
            silo,
            trackers=self._trackers,
        )
        self._roles.append(RoleProcess(config, self._context))

    def _follow(self) -> Iterator[dict[str, Any]]:
        """Events of all roles, until all have ended or one has failed."""
        give_up: float | None = None
        while open_roles := [role for role in self._roles if not role.ended]:
            timeout = None if give_up is None else give_up - time.monotonic()
            if timeout is not None and timeout <= 0:
                return
            courier = self._courier if self._courier and not self._courier.ended else None
            sources = [courier.events] if courier else []
            ready = wait([*sources, *(role.events for role in open_roles)], timeout)
            if courier and courier.events in ready and (event := courier.read()) is not None:
                yield event
            for role in open_roles:
                if role.events in ready and (event := role.read()) is not None:
                    yield event
                if role.error is not None and give_up is None:
                    give_up = time.monotonic() + LAST_WORDS_SECONDS

    @contextmanager
    def delivered(self) -> Iterator[None]:
        """Have figures delivered before the block and files after it, as far as time allows."""
        self._tell(self._courier.drain() if self._courier else ())
        try:
            yield
        finally:
            self._tell(self._courier.finish() if self._courier else ())

    def _tell(self, events: Iterable[dict[str, Any]]) -> None:
        """As far as anybody still listens: the end of the run is to be written all the same."""
        listens = True
        for event in events:
            try:
                if listens:
                    self._on_event(event)
            except OSError:
                listens = False

    def stop(self) -> None:
        """End every process, and wait until all are gone."""
        for role in self._roles:
            role.terminate()
        for role in self._roles:
            role.join()


def _cause(errors: dict[str, FlError]) -> FlError:
    """Of several roles' errors the one that the others follow from."""
    own = [e for name, e in errors.items() if name != "aggregator" and e.exit_code not in (15, 16)]
    silo = [error for name, error in errors.items() if name != "aggregator"]
    aggregator = [error for name, error in errors.items() if name == "aggregator"]
    if aggregator and aggregator[0].exit_code != RoleError.exit_code:
        return aggregator[0]
    return (own or silo or aggregator)[0]


def _context() -> ForkServerContext:
    return multiprocessing.get_context("forkserver")
