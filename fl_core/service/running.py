"""A run under way: its folder, its aggregator's process, and what is written at its end."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from fl_core import report, runs
from fl_core.errors import (
    FlError,
    Interrupted,
    RunFolderError,
    ServiceError,
    StorageError,
    from_dict,
)
from fl_core.launch import RoleProcess, main_module_hidden
from fl_core.plugins import Plugins
from fl_core.role import Order, RoleConfig
from fl_core.role_process import leave_with_parent
from fl_core.service.store import StoredRun
from fl_core.service.validation import resolved

_log = logging.getLogger(__name__)
OnEvent = Callable[[dict[str, Any] | None], None]


@dataclass
class Running:
    """A run whose aggregator role has been started. Its fields belong to the coordinator's loop."""

    stored: StoredRun
    slot: int
    config: RoleConfig
    manifest: dict[str, Any]
    process: RoleProcess
    began: float = field(default_factory=time.monotonic)
    port: int = 0
    """Where its aggregator listens; 0 until it does."""
    round: int = 0
    at_work: set[str] = field(default_factory=set)
    """Silos whose roles have a stream to the aggregator."""
    asked: set[str] = field(default_factory=set)
    """Silos whose agents were told to take part, and have not told an end since."""
    unreached: Counter[str] = field(default_factory=Counter)
    """How often a silo's role has ended because it did not get to the aggregator."""
    restarts: int = 0
    ending: FlError | None = None
    """Why it is being ended, where an operator wants that."""

    def follow(self, on_event: OnEvent) -> None:
        """Hand on the events of the run's aggregator, to its end. For a thread of its own."""
        process = self.process
        while not process.ended:
            on_event(process.read())

    def order(self, order: Order) -> None:
        """Tell the aggregator something."""
        self.process.order(order)

    def end(self, reason: FlError) -> None:
        """Have it end for ``reason``."""
        if self.ending is None:
            self.ending = reason
            self.process.end()

    def leave(self) -> None:
        """End its process, and leave the run to the next coordinator."""
        self.process.end()

    def again(self, context: SpawnContext) -> None:
        """Start its aggregator again, which goes on from its checkpoint. Raises OSError."""
        self.port, self.restarts = 0, self.restarts + 1
        self.at_work.clear()
        self.asked.clear()
        self.config = replace(self.config, resume=True)
        self.process = RoleProcess(self.config, context)

    @property
    def cut_off(self) -> bool:
        """Whether its process was ended from outside, and not at an operator's wish."""
        stopped = self.process.killed or isinstance(self.process.error, Interrupted)
        return stopped and self.ending is None

    @property
    def outcome(self) -> FlError | None:
        """Why it has ended; None when it is complete."""
        error = self.process.error
        return error if error is None or self.ending is None else self.ending

    @property
    def _manifest_now(self) -> dict[str, Any]:
        before = self.manifest.get("seconds", 0.0)
        return {**self.manifest, "seconds": round(before + time.monotonic() - self.began, 3)}

    def note(self) -> None:
        """Write down what is known of it so far. Raises StorageError."""
        runs.write_manifest(self.config.folder, self._manifest_now)

    def write(self, error: FlError | None, context: SpawnContext) -> FlError | None:
        """Write the last manifest and the report; gives ``error``, or why that was impossible."""
        return _written(self.stored.id, self.config.folder, self._manifest_now, error, context)


def start(
    run: StoredRun,
    slot: int,
    config: RoleConfig,
    plugins: Plugins,
    fingerprints: Mapping[str, str],
    context: SpawnContext,
) -> Running:
    """Make a run's folder, or take up the one it has, and start its aggregator. Raises FlError."""
    job = resolved(config.spec, plugins, config.folder)
    certificates = {"aggregator": config.identity.fingerprint, **fingerprints}
    manifest = runs.describe(run.id, config.spec, job.schema, plugins, certificates)
    if config.resume and (config.folder / runs.MANIFEST_FILE).exists():
        manifest = runs.taken_up(config.folder, manifest)
    else:
        if config.resume:  # it was cut off before there was anything to take up
            shutil.rmtree(config.folder, ignore_errors=True)
        runs.create(config.folder, manifest)
    try:
        process = RoleProcess(config, context)
    except OSError as error:
        known = no_process(error)
        report.conclude(config.folder, manifest, known)
        raise known from error
    return Running(run, slot, config, manifest, process)


def no_process(error: OSError) -> ServiceError:
    """That the system has no room for an aggregator's process."""
    return ServiceError(f"no process for the aggregator: {error}", "free memory")


def written_end(folder: Path) -> tuple[bool, FlError | None]:
    """Whether a run's manifest says that it has ended, and the error that ended it.

    Raises RunFolderError for a manifest that is none.
    """
    if not (folder / runs.MANIFEST_FILE).exists():
        return False, None
    manifest = runs.open_run(folder).manifest
    told = manifest.get("error")
    return manifest["status"] != runs.RUNNING, None if told is None else from_dict(told)


def close(run_id: str, folder: Path, error: FlError, context: SpawnContext) -> FlError:
    """Complete the folder of a run that has no aggregator, as far as there is one."""
    try:
        manifest = runs.open_run(folder).manifest
    except RunFolderError as missing:
        _log.warning("run %s: its folder stays as it is: %s", run_id, missing.message)
        return error
    return _written(run_id, folder, manifest, error, context) or error


def _written(
    run_id: str,
    folder: Path,
    manifest: Mapping[str, Any],
    error: FlError | None,
    context: SpawnContext,
) -> FlError | None:
    """Write the last manifest and the report; gives ``error``, or why that was impossible.

    In a process of its own: a report of many rounds takes seconds and hundreds of megabytes.
    """
    told = None if error is None else error.as_dict()
    process = context.Process(target=_write, args=(folder, manifest, told))
    try:
        with main_module_hidden():
            process.start()
        process.join()
    except OSError as failure:
        return error or StorageError(f"run {run_id}: no process: {failure}")
    if process.exitcode != 0 and error is None:
        return StorageError(
            f"run {run_id}: its folder could not be completed",
            "the coordinator's log says why; is its disk full?",
        )
    return error


def _write(folder: Path, manifest: Mapping[str, Any], told: dict[str, str | int] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's: what is begun is to be whole
    leave_with_parent()  # the next coordinator does it anew, and not beside this one
    report.conclude(folder, manifest, None if told is None else from_dict(told))
