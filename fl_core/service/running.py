"""A run under way: its folder, its aggregator's process, and what is written at its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from fl_core import report, runs
from fl_core.errors import FlError, ServiceError, StorageError, from_dict
from fl_core.launch import RoleProcess, main_module_hidden
from fl_core.plugins import Plugins
from fl_core.role import RoleConfig
from fl_core.service.store import StoredRun
from fl_core.service.validation import resolved

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
    ending: FlError | None = None
    """Why it is being ended, where that is not the aggregator's own decision."""
    give_up: float | None = None
    """When its process is made to end."""
    ended_by_us: bool = False

    def follow(self, on_event: OnEvent) -> None:
        """Hand on the events of the run's aggregator, to its end. For a thread of its own."""
        while not self.process.ended:
            on_event(self.process.read())

    def end(self, reason: FlError, after: float) -> None:
        """Have it end for ``reason``, unless it does so by itself within ``after`` seconds."""
        if self.ending is None:
            self.ending = reason
            self.give_up = time.monotonic() + after

    def press(self) -> None:
        """Make its process end, if the time for that has come."""
        if self.give_up is not None and time.monotonic() >= self.give_up:
            self.give_up, self.ended_by_us = None, True
            self.process.end()

    @property
    def outcome(self) -> FlError | None:
        """Why it has ended; None when it is complete."""
        error = self.process.error
        if error is not None and self.ending is not None and self.ended_by_us:
            return self.ending
        return error

    def write(self, error: FlError | None, context: SpawnContext) -> FlError | None:
        """Write the last manifest and the report; gives ``error``, or why that was impossible.

        In a process of its own: a report of many rounds takes seconds and hundreds of megabytes.
        """
        seconds = round(time.monotonic() - self.began, 3)
        manifest = {**self.manifest, "seconds": seconds}
        told = None if error is None else error.as_dict()
        process = context.Process(target=_write, args=(self.config.folder, manifest, told))
        try:
            with main_module_hidden():
                process.start()
            process.join()
        except OSError as failure:
            return error or StorageError(f"run {self.stored.id}: no process: {failure}")
        if process.exitcode != 0 and error is None:
            return StorageError(
                f"run {self.stored.id}: its folder could not be completed",
                "the coordinator's log says why; is its disk full?",
            )
        return error


def start(
    run: StoredRun,
    slot: int,
    config: RoleConfig,
    plugins: Plugins,
    fingerprints: Mapping[str, str],
    context: SpawnContext,
) -> Running:
    """Make a run's folder and start its aggregator. Raises FlError."""
    job = resolved(config.spec, plugins, config.folder)
    certificates = {"aggregator": config.identity.fingerprint, **fingerprints}
    manifest = runs.describe(run.id, config.spec, job.schema, plugins, certificates)
    runs.create(config.folder, manifest)
    try:
        process = RoleProcess(config, context)
    except OSError as error:
        known = ServiceError(f"no process for the aggregator: {error}", "free memory")
        report.conclude(config.folder, manifest, known)
        raise known from error
    return Running(run, slot, config, manifest, process)


def _write(folder: Path, manifest: Mapping[str, Any], told: dict[str, str | int] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's: what is begun is to be whole
    report.conclude(folder, manifest, None if told is None else from_dict(told))
