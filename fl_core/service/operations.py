"""What operators ask of the coordinator, each call in a thread of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fl_core import runs
from fl_core.errors import FlError, RunFolderError, ServiceError
from fl_core.plugins import Plugins, described
from fl_core.service import control, validation
from fl_core.service.coordinator import Coordinator
from fl_core.transport.frames import Frame
from fl_core.transport.identity import Party

_log = logging.getLogger(__name__)
LISTED_RUNS = 50
FOLLOW_SECONDS = 0.5
"""How often a log that is followed is looked at."""
Alive = Callable[[], bool]


class _Submit(BaseModel):
    model_config = ConfigDict(strict=True)

    spec: dict[str, Any]


class _OfRun(BaseModel):
    model_config = ConfigDict(strict=True)

    run: str = Field(max_length=200)
    follow: bool = False


class _OfSilo(BaseModel):
    model_config = ConfigDict(strict=True)

    silo: str = Field(max_length=200)


class Operations:
    """Answers operators' requests about ``coordinator``."""

    def __init__(self, coordinator: Coordinator, plugins: Plugins) -> None:
        self._coordinator = coordinator
        self._plugins = plugins
        self._answers = {
            control.SUBMIT: self._submit,
            control.STATUS: self._status,
            control.LOGS: self._logs,
            control.STOP_RUN: self._stop,
            control.FETCH: self._fetch,
            control.REMOVE: self._remove,
            control.READMIT: self._readmit,
        }

    def answer(self, operator: Party, request: Frame, alive: Alive) -> Iterator[Frame]:
        """The frames that answer a request; the last one is an error where there is one."""
        try:
            known = self._answers.get(request.kind)
            if known is None:
                raise ServiceError(
                    f"request of unknown kind {request.kind}",
                    "both ends must run the same version of fl-core",
                )
            yield from known(operator.name, control.body(request), alive)
        except ValidationError as error:
            yield _error(ServiceError(f"request is not understood: {error!r:.300}"))
        except FlError as error:
            _log.warning("operator %s: %s", operator.name, error.message)
            yield _error(error)
        except Exception as error:  # noqa: BLE001 - the last resort of a call: it must be answered
            _log.exception("operator %s: request of kind %d", operator.name, request.kind)
            yield _error(FlError(described(error), "this is a bug of fl-core: see the log"))

    def _submit(self, operator: str, body: dict[str, Any], alive: Alive) -> Iterator[Frame]:
        spec = validation.parsed(_Submit.model_validate(body).spec)
        nowhere = self._coordinator.folder("")
        job = validation.resolved(spec, self._plugins, nowhere / "files-of-run-files")
        yield self._ask(lambda: self._coordinator.submit(job, operator))

    def _status(self, operator: str, body: dict[str, Any], alive: Alive) -> Iterator[Frame]:
        yield self._ask(lambda: self._coordinator.status(LISTED_RUNS))

    def _stop(self, operator: str, body: dict[str, Any], alive: Alive) -> Iterator[Frame]:
        run_id = _OfRun.model_validate(body).run
        yield self._ask(lambda: self._coordinator.stop_run(run_id, operator))

    def _remove(self, operator: str, body: dict[str, Any], alive: Alive) -> Iterator[Frame]:
        run_id = _OfRun.model_validate(body).run
        yield self._ask(lambda: self._coordinator.remove(run_id, operator))

    def _readmit(self, operator: str, body: dict[str, Any], alive: Alive) -> Iterator[Frame]:
        silo = _OfSilo.model_validate(body).silo
        yield self._ask(lambda: self._coordinator.readmit(silo, operator))

    def _logs(self, operator: str, body: dict[str, Any], alive: Alive) -> Iterator[Frame]:
        """The aggregator's log; followed, until the run is over."""
        request = _OfRun.model_validate(body)
        place = 0
        while True:
            run = self._coordinator.loop.ask(lambda: self._coordinator.stored(request.run))
            log = self._coordinator.folder(run.id) / "log.txt"
            while part := _part(log, place):
                place += len(part)
                yield Frame(control.PART, state=part)
            if not request.follow or run.over or not alive():
                return
            time.sleep(FOLLOW_SECONDS)

    def _fetch(self, operator: str, body: dict[str, Any], alive: Alive) -> Iterator[Frame]:
        """A run's folder: the list of its files, and then all their parts in that order."""
        run_id = _OfRun.model_validate(body).run
        run = self._coordinator.loop.ask(lambda: self._coordinator.stored(run_id))
        folder = self._coordinator.folder(run.id)
        if not run.over:
            raise ServiceError(
                f"run {run.id} is {run.status}", f"wait for its end: `fl logs -f {run.id}`"
            )
        files = runs.files(folder)
        if not files:
            raise RunFolderError(
                f"run {run.id} has left nothing: it is {run.status}", "`fl status` says why"
            )
        listed = [
            {"name": path.relative_to(folder).as_posix(), "size": path.stat().st_size}
            for path in files
        ]
        yield control.message(control.ANSWER, {"run": run.id, "files": listed})
        for path in files:
            place = 0
            while alive() and (part := _part(path, place)):
                place += len(part)
                yield Frame(control.PART, state=part)

    def _ask(self, question: Callable[[], dict[str, Any]]) -> Frame:
        return control.message(control.ANSWER, self._coordinator.loop.ask(question))


def _part(path: Path, place: int) -> bytes:
    """The bytes of a file from ``place`` on, not too many; none at its end, or without it."""
    try:
        with path.open("rb") as file:
            file.seek(place)
            return file.read(control.PART_BYTES)
    except FileNotFoundError:
        return b""


def _error(error: FlError) -> Frame:
    return control.message(control.ERROR, error.as_dict())
