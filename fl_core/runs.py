"""The run folder: what a run leaves behind, and how it is found again.

A run's folder holds manifest.json, metrics.jsonl, model.safetensors, preprocessing.json (schema and
scaling), scores.json (final test scores counted in bins), report.html, a folder a silo with its
log, and whatever the model exports.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fl_core import state as states
from fl_core.dataset import Schema
from fl_core.errors import FlError, Interrupted, RunFolderError, nearest
from fl_core.files import lock, storing, write_atomic
from fl_core.metrics import Scores
from fl_core.plugins import Plugins
from fl_core.preprocessing import Scaling
from fl_core.spec import RunSpec, as_json
from fl_core.tracking import delivery
from fl_core.tracking import local as tracking
from fl_core.tracking.contract import Part
from fl_core.tracking.local import METRICS_FILE
from fl_core.tracking.part import TRACKING_FILE, Recorded

RUNNING, COMPLETED, FAILED, INTERRUPTED = "running", "completed", "failed", "interrupted"
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.safetensors"
PREPROCESSING_FILE = "preprocessing.json"
SCORES_FILE = "scores.json"
ROUNDS_FILE = "rounds.jsonl"
LOCK_FILE = ".lock"
REPORT_FILE = "report.html"
SILOS_FOLDER = "silos"
DEFAULT_ROOT = Path("runs")
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}-[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
"""What :func:`new_id` makes: a name that may stand in a path."""


class _Choice(BaseModel):
    name: str


class _Spec(BaseModel):
    model: _Choice


class _Error(BaseModel):
    code: int
    message: str


class _Manifest(BaseModel):
    """What every manifest holds, and what ``fl runs`` shows of it."""

    model_config = ConfigDict(strict=True)

    id: str
    status: str
    started: str
    spec: _Spec
    seconds: float | None = None
    error: _Error | None = None


class _Figure(BaseModel):
    """A row of metrics.jsonl."""

    model_config = ConfigDict(strict=True)

    name: str
    round: int
    silo: str | None
    value: float | None


_FIGURES = TypeAdapter(list[_Figure])


def new_id(name: str) -> str:
    """``NAME-YYYYMMDD-HHMMSS-XXXXXXXX``: readable, in order of time (UTC), its end random."""
    return f"{name}-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def create(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make a new run folder with its first manifest, or leave nothing.

    Raises RunFolderError when the folder exists, StorageError when it cannot be made.
    """
    with storing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir(mode=0o700)  # logs hold tracebacks, and these may hold values of rows
        except FileExistsError as error:
            raise RunFolderError(
                f"run folder {folder} exists", "choose another with --out, or remove it"
            ) from error
    try:
        write_manifest(folder, manifest)
    except BaseException:  # a Ctrl-C as well
        shutil.rmtree(folder)
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder, so that nobody else goes on with the run.

    Raises RunFolderError when somebody else holds it, StorageError.
    """
    with storing(folder / LOCK_FILE):
        descriptor = lock(folder / LOCK_FILE)
    if descriptor is None:
        raise RunFolderError(f"another process works in {folder}", "wait for its end, or end it")
    try:
        yield
    finally:
        os.close(descriptor)


def taken_up(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write and give the manifest of a run that goes on: ``manifest``, with what was before.

    Raises RunFolderError when the run is complete, or of another spec.
    """
    before = open_run(folder).manifest
    if before["status"] == COMPLETED:
        raise RunFolderError(f"run {before['id']} is complete", "there is nothing to go on with")
    if before["spec_sha256"] != manifest["spec_sha256"]:
        raise RunFolderError(f"{folder} holds a run of another run file", "resume that one")
    kept = {"started": before["started"], "rows": before["rows"]}
    now = {
        **manifest,
        **kept,
        "seconds": before.get("seconds", 0.0),
        "resumed": [*before.get("resumed", ()), _now()],
    }
    write_manifest(folder, now)
    return now


def sha256(data: bytes | str) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def describe(
    run_id: str,
    spec: RunSpec,
    schema: Schema,
    plugins: Plugins,
    fingerprints: Mapping[str, str],
) -> dict[str, Any]:
    """A manifest's fields that are known before the run starts."""
    return {
        "id": run_id,
        "status": RUNNING,
        "started": _now(),
        "spec": spec.model_dump(mode="json"),
        "spec_sha256": sha256(as_json(spec)),
        "seeds": {"run": spec.seed, "split": spec.split.seed},
        "schema_sha256": sha256(schema.model_dump_json()),
        "features": list(schema.features),
        "plugins": [
            {"name": p.name, "distribution": p.distribution, "version": p.version}
            for p in plugins.plugins
            if p.error is None
        ],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": _libraries({plugin.distribution for plugin in plugins.plugins}),
        "certificates_sha256": dict(fingerprints),
        "rows": {},
    }


def _libraries(distributions: Collection[str]) -> dict[str, str]:
    """Versions of what these distributions require, where it is installed."""
    wanted = {
        name.group().lower()
        for distribution in distributions
        for requirement in requires(distribution) or ()
        if (name := re.match(r"[A-Za-z0-9._-]+", requirement))
    }
    found = {}
    for library in sorted(wanted):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue  # an extra that is not installed
    return found


def files(folder: Path) -> list[Path]:
    """The files that a run has left: not those that say what trackers were told of it since."""
    return sorted(
        path
        for path in folder.rglob("*")
        if not path.name.startswith((".", "tracking-")) and path.is_file()
    )


def concluded(folder: Path, manifest: Mapping[str, Any], error: FlError | None) -> Run:
    """A run that has ended, with the hashes of its files in its manifest.

    The status is completed, interrupted or failed, as ``error`` says.
    """
    status = COMPLETED if error is None else FAILED
    if isinstance(error, Interrupted):
        status = INTERRUPTED
    kept = [path for path in files(folder) if path.name not in (MANIFEST_FILE, REPORT_FILE)]
    ended = {
        **manifest,
        "status": status,
        "finished": _now(),
        "exit_code": 0 if error is None else error.exit_code,
        "error": None if error is None else error.as_dict(),
        "files": {str(path.relative_to(folder)): sha256(path.read_bytes()) for path in kept},
    }
    return Run(folder, ended)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json. Raises StorageError."""
    write_atomic(folder / MANIFEST_FILE, json.dumps(manifest, indent=2) + "\n")


def preprocessing(schema: Schema, scaling: Scaling) -> str:
    """preprocessing.json: what turns a csv file's rows into a model's input."""
    fields = {
        "schema": schema.model_dump(mode="json"),
        "features": list(schema.features),
        "mean": scaling.mean.tolist(),
        "deviation": scaling.deviation.tolist(),
    }
    return json.dumps(fields, indent=2) + "\n"


def score_counts(tests: Mapping[str, Scores]) -> str:
    """scores.json: final test scores by silo, as [bin, negatives, positives] where not zero."""
    fields = {
        silo: {
            "counts": [
                [int(i), int(scores.negative[i]), int(scores.positive[i])]
                for i in np.flatnonzero(scores.negative + scores.positive)
            ],
            "loss_sum": scores.loss_sum,
        }
        for silo, scores in tests.items()
    }
    return json.dumps(fields) + "\n"


@dataclass(frozen=True)
class Run:
    """A run's folder and what it holds."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def spec(self) -> RunSpec:
        """The run's spec. Raises RunFolderError when another version of fl-core wrote it."""
        try:
            return RunSpec.model_validate(self.manifest["spec"])
        except ValidationError as error:
            raise RunFolderError(
                f"{self.folder / MANIFEST_FILE}: its spec is not one of this version: {error}",
                "use the version of fl-core that made the run",
            ) from error

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; none when the run ended before its first figure.

        Raises RunFolderError when it cannot be read.
        """
        path = self.folder / METRICS_FILE
        try:
            rows = tracking.read(path) if path.exists() else []
            _FIGURES.validate_python(rows)
        except ValidationError as error:
            raise RunFolderError(f"{path} {_first(error)}", "restore it") from error
        except (OSError, ValueError, RecursionError) as error:
            raise RunFolderError(f"{path} cannot be read: {error}", "restore it") from error
        return rows

    def state(self) -> states.State:
        """The final state. Raises RunFolderError when the run has none."""
        data = self._file(MODEL_FILE)
        return states.decode(data, max_bytes=len(data))

    def preprocessing(self) -> tuple[Schema, Scaling]:
        """Schema and scaling. Raises RunFolderError when the run has none."""
        fields = json.loads(self._file(PREPROCESSING_FILE))
        scaling = Scaling(np.array(fields["mean"]), np.array(fields["deviation"]))
        return Schema.model_validate(fields["schema"]), scaling

    def scores(self) -> dict[str, Scores]:
        """The final test scores by silo; empty when the run has none.

        Raises RunFolderError when they are not those that the run wrote.
        """
        if not (self.folder / SCORES_FILE).exists():
            return {}
        result = {}
        for silo, fields in json.loads(self._file(SCORES_FILE)).items():
            scores = Scores.pooled([])
            for i, negative, positive in fields["counts"]:
                scores.negative[i], scores.positive[i] = negative, positive
            result[silo] = Scores(scores.negative, scores.positive, fields["loss_sum"])
        return result

    def _file(self, name: str) -> bytes:
        path = self.folder / name
        if not path.exists():
            raise RunFolderError(
                f"{path} is missing: run {self.manifest['id']} is {self.manifest['status']}",
                "only completed runs have a model",
            )
        data = path.read_bytes()
        if sha256(data) != self.manifest.get("files", {}).get(name):
            raise RunFolderError(
                f"{path} is not the file that the run wrote (its SHA-256 differs from the "
                "manifest's)",
                "restore it, or run again",
            )
        return data


def find(name: str, root: Path = DEFAULT_ROOT) -> Run:
    """A run by its id, or by its folder's path. Raises RunFolderError."""
    for folder in (Path(name), root / name):
        try:
            found = (folder / MANIFEST_FILE).is_file()
        except OSError:  # a name that no file can have
            continue
        if found:
            return open_run(folder)
    runs = every(root)
    for run in runs:  # --out gives a folder another name
        if run.manifest["id"] == name:
            return run
    known = [run.manifest["id"] for run in runs]
    raise RunFolderError(f"no run {name!r:.300} here or in {root}", nearest(name, known))


def open_run(folder: Path) -> Run:
    """The run of a folder. Raises RunFolderError when its manifest is none, or cannot be read."""
    path = folder / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text)
        _Manifest.model_validate_json(text)
    except ValidationError as error:
        raise RunFolderError(
            f"{path} is no run's manifest: {_first(error)}", "restore it"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}", "restore it") from error
    return Run(folder, manifest)


def every(root: Path = DEFAULT_ROOT) -> list[Run]:
    """All runs below ``root``, oldest first; folders without a readable manifest are no runs."""
    runs = []
    for path in root.glob(f"*/{MANIFEST_FILE}"):
        try:
            runs.append(open_run(path.parent))
        except RunFolderError:
            continue
    return sorted(runs, key=lambda run: (_started(run), run.manifest["id"]))


def parts_of(folder: Path) -> list[Path]:
    """The folders of a run's parts, as roles have written them: its own, and its silos'."""
    folders = [folder, *sorted((folder / SILOS_FOLDER).glob("*"))]
    return [one for one in folders if (one / TRACKING_FILE).is_file()]


def deliveries(folder: Path) -> list[tuple[Part, delivery.State]]:
    """What each tracker has been told of each part of a run. Raises RunFolderError."""
    found = []
    for path in parts_of(folder):
        recorded = Recorded(path)
        known = {
            choice.name: delivery.State(tracker=choice.name, params={})
            for choice in recorded.trackers
        }
        known |= {state.tracker: state for state in delivery.states(path)}
        found += [(recorded.part, state) for _, state in sorted(known.items())]
    return found


def _started(run: Run) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(run.manifest["started"]).astimezone(dt.UTC)
    except (ValueError, OverflowError):  # no time, and so before all others
        return dt.datetime.min.replace(tzinfo=dt.UTC)


def _first(error: ValidationError) -> str:
    """The first of pydantic's complaints: where, and what."""
    first = error.errors(include_url=False)[0]
    return f"has a wrong {'.'.join(str(part) for part in first['loc']) or 'form'}: {first['msg']}"


def _now() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
