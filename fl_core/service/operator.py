"""An operator's side of the calls to a coordinator."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fl_core import job, runs
from fl_core.errors import FlError, RunFolderError, TransportError, from_dict
from fl_core.files import inside, storing
from fl_core.plugins import Plugins
from fl_core.service import control
from fl_core.spec import RunSpec, as_message
from fl_core.transport import client
from fl_core.transport.frames import Bytes, Frame
from fl_core.transport.identity import Identity
from fl_core.yaml_file import SpecSource


class _File(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str = Field(max_length=500)
    size: int = Field(ge=0)


class _Listed(BaseModel):
    model_config = ConfigDict(strict=True)

    run: str = Field(pattern=f"^{runs.RUN_ID.pattern}$")
    files: list[_File]


@dataclass(frozen=True)
class Operator:
    """Calls a coordinator. Every method raises the FlError that the coordinator answers with, or
    TransportError when it cannot be reached."""

    identity: Identity
    coordinator: str
    """HOST:PORT."""

    def submit(
        self, spec: RunSpec, source: SpecSource, plugins: Plugins, folder: Path
    ) -> dict[str, Any]:
        """Submit a run, with what its run file names beside it; gives its id, and absent silos."""
        portable = job.portable(spec, source, plugins, folder)
        return self._ask(control.SUBMIT, {"spec": json.loads(as_message(portable))})

    def status(self) -> dict[str, Any]:
        """The federation: its silos, and the runs submitted last."""
        return self._ask(control.STATUS, {})

    def stop(self, run_id: str) -> dict[str, Any]:
        """End a run, or take it from the queue."""
        return self._ask(control.STOP_RUN, {"run": run_id})

    def remove(self, run_id: str) -> dict[str, Any]:
        """Have a run that is over forgotten, and its folder removed."""
        return self._ask(control.REMOVE, {"run": run_id})

    def readmit(self, silo: str) -> dict[str, Any]:
        """Let a silo back that was set aside."""
        return self._ask(control.READMIT, {"silo": silo})

    def logs(self, run_id: str, follow: bool) -> Iterator[bytes]:
        """The log of a run's aggregator, in parts; followed, until the run is over."""
        for frame in self._call(control.LOGS, {"run": run_id, "follow": follow}):
            yield bytes(frame.state)

    def fetch(self, run_id: str, folder: Path) -> runs.Run:
        """Bring a run's folder here, whole or not at all. Raises RunFolderError if there is one."""
        if folder.exists():
            raise RunFolderError(f"{folder} exists", "choose another with --out, or remove it")
        with storing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            self._fetch_into(part, run_id)
            with storing(folder):
                part.rename(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return runs.open_run(folder)

    def _fetch_into(self, folder: Path, run_id: str) -> None:
        frames = self._call(control.FETCH, {"run": run_id})
        try:
            listed = _Listed.model_validate(control.body(next(frames)))
        except (StopIteration, ValidationError) as error:
            raise TransportError(
                f"{self.coordinator} sent no list of files: {error!r:.200}",
                "both ends must run the same version of fl-core",
            ) from error
        for file in listed.files:
            path = inside(folder, file.name)
            with storing(path):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with path.open("xb") as opened:
                    while opened.tell() < file.size:
                        opened.write(self._next_part(frames, file.size - opened.tell(), run_id))
                    os.fsync(opened.fileno())
        _check_hashes(folder, run_id)

    def _next_part(self, frames: Iterator[Frame], wanted: int, run_id: str) -> Bytes:
        frame = next(frames, None)
        if frame is None or not 0 < len(frame.state) <= wanted:
            raise TransportError(f"run {run_id} came in part only", "fetch it again")
        return bytes(frame.state)

    def _ask(self, kind: int, body: dict[str, Any]) -> dict[str, Any]:
        for frame in self._call(kind, body):
            return control.body(frame)
        raise TransportError(
            f"{self.coordinator} gave no answer", "look into the coordinator's log"
        )

    def _call(self, kind: int, body: dict[str, Any]) -> Iterator[Frame]:
        request = control.message(kind, body)
        frames = client.call(
            self.identity, self.coordinator, control.TAG, request, control.MAX_ANSWER_BYTES
        )
        for frame in frames:
            if frame.kind == control.ERROR:
                raise _error(control.body(frame))
            yield frame


def _error(fields: dict[str, Any]) -> FlError:
    try:
        return from_dict(fields)
    except (KeyError, TypeError, ValueError):
        return FlError(f"the coordinator told of an error that is none: {fields!r:.200}")


def _check_hashes(folder: Path, run_id: str) -> None:
    """Raise RunFolderError when the files are not those that the manifest lists."""
    listed = runs.open_run(folder).manifest.get("files", {})
    for name, sha256 in listed.items() if isinstance(listed, dict) else ():
        path = inside(folder, name)
        found = _sha256(path) if path.is_file() else "nothing"
        if found != sha256:
            raise RunFolderError(
                f"run {run_id}: {name} is not what the coordinator wrote", "fetch it again"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
