"""The run folder: created once, found again, and not believed when it was changed."""

import datetime as dt
import errno
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_core import plugins as plugin_loader
from fl_core import runs
from fl_core import state as states
from fl_core.dataset import Category, Label, Number, Schema
from fl_core.errors import DataError, Interrupted, RunFolderError, StorageError
from fl_core.metrics import Scores, Value
from fl_core.preprocessing import Scaling
from fl_core.report import text as report_text
from fl_core.spec import RunSpec
from fl_core.tracking.local import MetricsFile

SPEC = RunSpec.model_validate(
    {
        "name": "trial",
        "dataset": {"name": "heart-disease"},
        "silos": ["b", "a"],
        "model": {"name": "mlp", "params": {"layers": [4]}},
        "strategy": {"name": "fedavg"},
        "rounds": 3,
        "seed": 7,
    }
)
SCHEMA = Schema(
    columns={"x": Number(), "c": Category(kind="category", values=("u", "v"))},
    label=Label(column="y", negative=(0,), positive=(1,)),
)


def manifest(run_id: str = "trial-1", **fields: Any) -> dict[str, Any]:
    described = {"id": run_id, "status": "completed", "spec": SPEC.model_dump(mode="json")}
    return {**described, "started": "2026-01-01T00:00:00+0000", **fields}


def keep(root: Path, run_id: str, **fields: Any) -> Path:
    folder = root / run_id
    runs.create(folder, manifest(run_id, **fields))
    return folder


@pytest.fixture
def finished(tmp_path) -> runs.Run:
    """A completed run with a model of one array."""
    folder = keep(tmp_path, "trial-1", status="running")
    (folder / runs.MODEL_FILE).write_bytes(states.encode({"w": np.arange(3.0)}))
    scaling = Scaling(np.array([1.5, 0.0]), np.array([2.0, 1.0]))
    (folder / runs.PREPROCESSING_FILE).write_text(runs.preprocessing(SCHEMA, scaling))
    scores = Scores.of(np.array([0.1, 0.1, 0.9]), np.array([0, 1, 1]))
    (folder / runs.SCORES_FILE).write_text(runs.score_counts({"a": scores}))
    runs.write_manifest(folder, runs.concluded(folder, manifest(), None).manifest)
    return runs.open_run(folder)


def test_ids_are_readable_and_differ():
    ids = {runs.new_id("heart") for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"heart-\d{8}-\d{6}-[0-9a-f]{8}", run_id) for run_id in ids)


def test_times_are_utc_wherever_the_machine_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        before = dt.datetime.now(dt.UTC).replace(microsecond=0)
        started = runs.describe("trial-1", SPEC, SCHEMA, plugin_loader.Plugins(), {})["started"]
        stamp = runs.new_id("heart").removeprefix("heart-")[:15]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert started.endswith("Z")
    for moment in (started, f"{stamp}Z"):
        assert 0 <= (dt.datetime.fromisoformat(moment) - before).total_seconds() < 60
    assert report_text.moment("2026-01-02T03:04:05Z") == "2 Jan 2026, 03:04:05 UTC"


def test_a_folder_is_made_with_its_parents_and_only_once(tmp_path):
    folder = tmp_path / "some" / "where" / "run"
    runs.create(folder, manifest("first"))
    with pytest.raises(RunFolderError, match=f"run folder {folder} exists") as caught:
        runs.create(folder, manifest("second"))
    assert "--out" in caught.value.remedy
    assert runs.open_run(folder).manifest["id"] == "first"
    assert [path.name for path in folder.iterdir()] == [runs.MANIFEST_FILE]


def test_a_folder_whose_manifest_cannot_be_written_is_not_left_behind(tmp_path, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        runs.create(tmp_path / "run", manifest())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_made_in_place_of_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="exists"):
        runs.create(tmp_path / "file", manifest())
    with pytest.raises(StorageError, match="cannot write"):
        runs.create(tmp_path / "file" / "run", manifest())


def test_a_manifest_says_what_ran(monkeypatch):
    monkeypatch.setenv("FL_PLUGINS", "")
    plugins = plugin_loader.load()
    described = runs.describe("trial-1", SPEC, SCHEMA, plugins, {"a": "ff"})
    assert described["id"] == "trial-1"
    assert described["status"] == "running"
    assert described["seeds"] == {"run": 7, "split": 43}
    assert described["features"] == ["x", "c=v"]
    assert all(described["libraries"].values())
    assert {"name": "datasets", "distribution": "fl-core"}.items() <= described["plugins"][
        1
    ].items()
    assert described["certificates_sha256"] == {"a": "ff"}
    assert len(described["schema_sha256"]) == len(described["spec_sha256"]) == 64
    json.dumps(described, allow_nan=False)


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        ("completed", None, 0),
        ("failed", DataError("what", "do"), 13),
        ("interrupted", Interrupted("stopped"), 130),
    ],
)
def test_a_conclusion_holds_status_error_and_hashes(tmp_path, status, error, code):
    folder = keep(tmp_path, "trial-1")
    (folder / "silos" / "a").mkdir(parents=True)
    (folder / "silos" / "a" / "log.txt").write_text("x")
    (folder / "silos" / "a" / "tracking-notes.json").write_text("changes later")
    (folder / ".model.part").write_text("of another process")
    concluded = runs.concluded(folder, manifest(status="running"), error).manifest
    runs.write_manifest(folder, concluded)
    assert runs.open_run(folder).manifest == concluded
    assert (concluded["status"], concluded["exit_code"]) == (status, code)
    assert concluded["error"] == (None if error is None else error.as_dict())
    assert concluded["files"] == {"silos/a/log.txt": runs.sha256("x")}
    assert "finished" in concluded


def test_what_a_run_wrote_can_be_read_again(finished):
    assert finished.spec == SPEC
    assert finished.state()["w"].tolist() == [0, 1, 2]
    schema, scaling = finished.preprocessing()
    assert schema == SCHEMA
    assert (scaling.mean.tolist(), scaling.deviation.tolist()) == ([1.5, 0], [2, 1])
    scores = finished.scores()["a"]
    assert scores.count == 3
    assert scores.auc().number == 0.75
    assert finished.metrics() == []


def test_metrics_are_read_up_to_a_line_that_was_cut_off(finished):
    path = finished.folder / runs.METRICS_FILE
    file = MetricsFile(path, "trial-1")
    file.log("silo", "a", 1, "Test:AUC", Value(0.5))
    file.log("silo", "a", 1, "Test:AUC", Value(None, "no rows"))
    file.close()
    with path.open("a") as cut:
        cut.write('{"time": 1')
    one, two = finished.metrics()
    assert (one["run"], one["silo"], one["round"], one["value"]) == ("trial-1", "a", 1, 0.5)
    assert "reason" not in one
    assert (two["value"], two["reason"]) == (None, "no rows")


@pytest.mark.parametrize("name", [runs.MODEL_FILE, runs.PREPROCESSING_FILE, runs.SCORES_FILE])
def test_a_file_that_was_changed_is_refused(finished, name):
    path = finished.folder / name
    path.write_bytes(path.read_bytes() + b" ")
    read = {
        runs.MODEL_FILE: finished.state,
        runs.PREPROCESSING_FILE: finished.preprocessing,
        runs.SCORES_FILE: finished.scores,
    }[name]
    with pytest.raises(RunFolderError, match="SHA-256 differs") as caught:
        read()
    assert str(path) in caught.value.message


def test_a_run_without_a_model_says_why(tmp_path):
    run = runs.open_run(keep(tmp_path, "trial-1", status="failed"))
    with pytest.raises(RunFolderError, match=r"is missing: run trial-1 is failed"):
        run.state()
    assert run.scores() == {}


def test_a_run_is_found_by_id_and_by_folder(tmp_path, monkeypatch):
    folder = keep(tmp_path / "runs", "trial-1")
    assert runs.find("trial-1", tmp_path / "runs").folder == folder
    assert runs.find(str(folder), tmp_path / "elsewhere").manifest["id"] == "trial-1"
    monkeypatch.chdir(tmp_path)
    assert runs.find("trial-1").manifest["id"] == "trial-1"
    assert runs.find("runs/trial-1").manifest["id"] == "trial-1"


def test_a_run_in_a_folder_of_another_name_is_found_by_its_id(tmp_path):
    folder = tmp_path / "mine"
    runs.create(folder, manifest("trial-1"))
    assert runs.find("trial-1", tmp_path).folder == folder
    assert runs.find("mine", tmp_path).folder == folder


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\0b", ""])
def test_a_name_that_no_folder_can_have_is_an_unknown_run(tmp_path, name):
    with pytest.raises(RunFolderError, match="no run ") as caught:
        runs.find(name, tmp_path)
    assert len(caught.value.message) < 500


def test_an_unknown_run_gets_a_suggestion(tmp_path):
    keep(tmp_path, "trial-1")
    with pytest.raises(RunFolderError, match="no run 'trail-1'") as caught:
        runs.find("trail-1", tmp_path)
    assert "did you mean 'trial-1'?" in caught.value.remedy
    with pytest.raises(RunFolderError, match="no run 'x'"):
        runs.find("x", tmp_path / "absent")


def test_all_runs_are_listed_oldest_first_without_other_folders(tmp_path):
    keep(tmp_path, "b", started="2026-01-02T00:00:00+0000")
    keep(tmp_path, "a", started="2026-01-03T00:00:00+0000")
    keep(tmp_path, "c", started="2026-01-01T00:00:00+0000")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / runs.MANIFEST_FILE).write_text("{")
    assert [run.manifest["id"] for run in runs.every(tmp_path)] == ["c", "b", "a"]
    assert runs.every(tmp_path / "absent") == []


def test_runs_of_other_time_zones_are_listed_by_when_they_started(tmp_path):
    keep(tmp_path, "second", started="2026-01-01T00:30:00Z")
    keep(tmp_path, "first", started="2026-01-01T09:00:00+0900")
    keep(tmp_path, "third", started="2025-12-31T20:00:00-05:00")
    keep(tmp_path, "unknown", started="yesterday")
    keep(tmp_path, "early", started="0001-01-01T00:00:00+0900")
    listed = [run.manifest["id"] for run in runs.every(tmp_path)]
    assert listed == ["early", "unknown", "first", "second", "third"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 5),
        ("status", None),
        ("spec", {}),
        ("spec", {"model": "mlp"}),
        ("started", 5),
        ("seconds", "long"),
        ("seconds", True),
        ("error", {"code": 16}),
    ],
)
def test_a_folder_whose_manifest_lacks_what_is_shown_is_no_run(tmp_path, field, value):
    keep(tmp_path, "good")
    odd = keep(tmp_path, "odd", **{field: value})
    with pytest.raises(RunFolderError, match=f"no run's manifest: has a wrong {field}"):
        runs.open_run(odd)
    assert [run.manifest["id"] for run in runs.every(tmp_path)] == ["good"]


@pytest.mark.parametrize(
    "row",
    [
        {"name": "Test:AUC", "round": 1, "silo": None},
        {"name": "Test:AUC", "round": 1, "silo": None, "value": "high"},
        {"name": 5, "round": 1, "silo": None, "value": 0.5},
        {"name": "Test:AUC", "round": 1, "silo": ["a"], "value": 0.5},
        [],
    ],
)
def test_rows_of_metrics_that_are_no_figures_are_refused(finished, row):
    (finished.folder / runs.METRICS_FILE).write_text(json.dumps(row) + "\n")
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl has a wrong 0"):
        finished.metrics()


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff", b"null", b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(tmp_path, content):
    (tmp_path / runs.MANIFEST_FILE).write_bytes(content)
    with pytest.raises(RunFolderError, match="manifest"):
        runs.open_run(tmp_path)


def test_metrics_and_specs_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "manifest.json").write_text(
        json.dumps(manifest(spec={"model": {"name": "mlp"}, "future": 1}))
    )
    (tmp_path / "metrics.jsonl").write_text("{}\ngarbage\n{}\n")
    run = runs.open_run(tmp_path)
    with pytest.raises(RunFolderError, match="not one of this version"):
        _ = run.spec
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl cannot be read"):
        run.metrics()


@pytest.mark.parametrize("error", [KeyboardInterrupt, StorageError("full")])
def test_a_folder_whose_manifest_could_not_be_written_is_gone(tmp_path, monkeypatch, error):
    def fails(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(runs, "write_manifest", fails)
    with pytest.raises((KeyboardInterrupt, StorageError)):
        runs.create(tmp_path / "run", {})
    assert list(tmp_path.iterdir()) == []
