"""The body of a role process: set up, run the role, tell how it ended."""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import setproctitle

from fl_core import plugins as plugin_loader
from fl_core.errors import FlError, Interrupted
from fl_core.files import storing
from fl_core.job import Job, resolve
from fl_core.own_data import folder_of
from fl_core.role import Order, RoleConfig, Tell
from fl_core.runs import sha256
from fl_core.spec import as_json
from fl_core.tracking.contract import Part
from fl_core.tracking.local import round_time
from fl_core.tracking.parameters import hyper_parameters
from fl_core.tracking.part import Record
from fl_core.yaml_file import SpecSource

_log = logging.getLogger("fl_core.role_process")


def main(config: RoleConfig, events: Connection) -> None:
    """Run the role that ``config`` describes; the process exits with the role's exit code.

    The last event is ``ended``, or ``failed`` with the error.
    """
    # The terminal sends Ctrl-C to the whole group; what it means is for the starter to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold key and rows
    signal.signal(signal.SIGTERM, _terminate)
    setproctitle.setproctitle(f"fl {config.name} ({config.run_id})")
    leave_with_parent()
    # What was imported is no garbage; a full collection would look through it, for 20 ms and more.
    gc.freeze()
    lock = threading.Lock()

    def tell(event: dict[str, Any]) -> None:
        with lock:
            try:
                events.send_bytes(json.dumps(event).encode())
            except OSError:  # nobody is left to tell
                os._exit(Interrupted.exit_code)

    error: FlError | None = None
    try:
        _log_to_file(config)
        _run(config, tell, events)
    except FlError as known:
        error = known
    except KeyboardInterrupt:
        error = Interrupted("stopped by a signal")
    except Exception as unknown:  # noqa: BLE001 - the last resort of a process: nothing is lost
        error = FlError(
            f"{config.name}: {type(unknown).__name__}: {unknown}",
            f"this is a bug of fl-core; its traceback is in {config.folder / 'log.txt'}",
        )
        _log.error("%s", "".join(traceback.format_exception(unknown)))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end is here; its word must get out
    if error is None:
        tell({"event": "ended"})
        raise SystemExit(0)
    _log.error("%s", "".join(traceback.format_exception(error)))
    tell({"event": "failed", "error": error.as_dict()})
    raise SystemExit(error.exit_code)


def _run(config: RoleConfig, tell: Tell, parent: Connection) -> None:
    with ExitStack() as stack:
        own_data = None
        if config.data is not None:
            own_data = stack.enter_context(folder_of(config.data, config.folder))
        _run_job(config, tell, parent, own_data)


def _run_job(config: RoleConfig, tell: Tell, parent: Connection, own_data: Path | None) -> None:
    plugins = plugin_loader.load()
    source = SpecSource("run file", {})
    job = resolve(config.spec, source, plugins, config.spec_folder, own_data)
    who = {"role": "aggregator" if config.silo is None else "silo", "silo": config.silo}
    plugins.call("before_run", run_id=config.run_id, spec=config.spec, **who)
    status = "failed"
    try:
        with _record(config, job) as record:
            if config.silo is None:
                from fl_core.roles import aggregator

                aggregator.run(
                    config, job, plugins, tell, record, lambda obey: _follow(parent, obey)
                )
            else:
                from fl_core.roles import silo

                silo.run(config, job, plugins, record)
        status = "completed"
    finally:
        plugins.call("after_run", run_id=config.run_id, status=status, **who)


def _follow(parent: Connection, obey: Callable[[Order], None]) -> None:
    """Have the orders obeyed that come from the process that started this one."""

    def read() -> None:
        while True:
            try:
                order = json.loads(parent.recv_bytes())
            except (EOFError, OSError):  # the parent is gone, and so will this process be
                return
            obey(order)

    threading.Thread(target=read, name="orders", daemon=True).start()


def _record(config: RoleConfig, job: Job) -> Record:
    parameters = hyper_parameters(job.spec, job.model.params, job.strategy.params, config.silo)
    digest = sha256(as_json(job.spec))
    part = Part(config.run_id, config.silo, digest, round_time(time.time()), parameters)
    return Record(config.folder, part, config.trackers)


def _log_to_file(config: RoleConfig) -> None:
    path = config.folder / "log.txt"
    with storing(path):
        handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    # What the format does not show need not be looked up for every line (the Logging HOWTO).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("fl_core").setLevel(logging.INFO)


def _terminate(signum: int, frame: object) -> None:
    # Whoever ends a whole group of processes sends it here twice; once is enough to end well.
    signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt  # which no `except Exception` on the way up takes for its own


def leave_with_parent() -> None:
    """End this process when the one that started it is gone, however that died."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(Interrupted.exit_code)

    threading.Thread(target=watch, name="parent", daemon=True).start()
