"""What a role writes of its part in a run, and what is left of it when the role is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from fl_core import role_process
from fl_core.errors import RunFolderError, StorageError, UpdateError
from fl_core.metrics import Value
from fl_core.spec import Choice, RunSpec
from fl_core.tracking import local
from fl_core.tracking.contract import Part, Status
from fl_core.tracking.local import METRICS_FILE, MetricsFile, Reader, being_written
from fl_core.tracking.parameters import hyper_parameters, sizes
from fl_core.tracking.part import TRACKING_FILE, Record, Recorded, outcome

PART = Part("small-20260101-000000-00000000", "north", "0" * 64, 1.5, {"epochs": 3})
ONE = Value(0.5)


def record(folder: Path) -> Record:
    return Record(folder, PART, [Choice(name="notes", params={"prefix": "p"})])


def test_a_part_that_goes_well_says_so(tmp_path):
    with record(tmp_path) as made:
        assert being_written(tmp_path)
        assert outcome(tmp_path, Recorded(tmp_path)) is None
        made.add(sizes({"train": 7}))
        made.log("north", 1, "Test:AUC", ONE)
    found = Recorded(tmp_path)
    assert not being_written(tmp_path)
    assert found.part == Part(
        PART.run, "north", PART.spec_sha256, 1.5, {"epochs": 3, "Train Data Size": 7}
    )
    assert found.trackers == (Choice(name="notes", params={"prefix": "p"}),)
    assert found.outcome is not None
    assert found.outcome.status is Status.COMPLETED
    [row] = local.read(tmp_path / METRICS_FILE)
    assert (row["silo"], row["round"], row["name"], row["value"]) == ("north", 1, "Test:AUC", 0.5)


@pytest.mark.parametrize(
    ("silo", "error", "status", "message"),
    [
        (None, UpdateError("not finite"), Status.FAILED, "not finite"),
        (None, KeyError("x"), Status.FAILED, "KeyError: 'x'"),
        (
            "north",
            UpdateError("age 93"),
            Status.FAILED,
            "failed: update refused; see the silo's log",
        ),
        ("north", KeyError("93"), Status.FAILED, "failed: KeyError; see the silo's log"),
        ("north", KeyboardInterrupt(), Status.STOPPED, "stopped by a signal"),
    ],
)
def test_a_part_that_does_not_says_why(tmp_path, silo, error, status, message):
    """A silo's only by the kind of error: its text may hold values of rows."""

    def ends_badly() -> None:
        with Record(tmp_path, replace(PART, silo=silo), []) as made:
            made.log("north", 1, "Test:AUC", ONE)
            raise error

    with pytest.raises(type(error)):
        ends_badly()
    found = Recorded(tmp_path).outcome
    assert found is not None
    assert (found.status, found.message) == (status, message)
    assert len(local.read(tmp_path / METRICS_FILE)) == 1


def test_a_part_that_others_end_is_stopped(tmp_path):
    with record(tmp_path) as made:
        made.stopped("the aggregator ended the run")
    found = Recorded(tmp_path).outcome
    assert found is not None
    assert (found.status, found.message) == (Status.STOPPED, "the aggregator ended the run")


@pytest.mark.parametrize("before", [True, False])
def test_a_signal_in_the_middle_of_the_end_leaves_a_stopped_part(tmp_path, monkeypatch, before):
    """The first one, or the second: a group's processes get one, and one from their starter."""
    close = MetricsFile.close

    def signalled(metrics: MetricsFile) -> None:
        close(metrics)
        signal.raise_signal(signal.SIGTERM)

    def ends() -> None:
        with record(tmp_path) as made:
            made.log("north", 1, "Test:AUC", ONE)
            if before:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(MetricsFile, "close", signalled)
    handler = signal.signal(signal.SIGTERM, role_process._terminate)
    try:
        with pytest.raises(KeyboardInterrupt):
            ends()
    finally:
        signal.signal(signal.SIGTERM, handler)
    found = Recorded(tmp_path).outcome
    assert found is not None
    assert (found.status, found.message) == (Status.STOPPED, "stopped by a signal")


def _logs_and_hangs(folder: Path, ready: multiprocessing.synchronize.Event) -> None:
    made = record(folder)
    for round in range(1, 101):
        made.log("north", round, "Test:AUC", ONE)
    ready.set()
    signal.pause()


def test_what_a_killed_role_has_logged_is_there(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_logs_and_hangs, args=(tmp_path, ready))
    process.start()
    assert process.pid is not None
    assert ready.wait(10)
    reader, rows = Reader(tmp_path / METRICS_FILE), []
    while len(rows) < 100:  # "before the last second": it takes milliseconds
        rows += reader.rows(1 << 20)
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    found = outcome(tmp_path, Recorded(tmp_path))
    assert found is not None
    assert (found.status, found.message) == (
        Status.FAILED,
        "the role's process ended without a word",
    )
    assert [row["round"] for _, row in rows] == list(range(1, 101))


def test_a_line_that_a_killed_role_has_begun_is_removed_by_the_next(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"round": 1}\n{"rou')
    with record(tmp_path) as made:
        made.log("north", 2, "Test:AUC", ONE)
    assert [row["round"] for row in local.read(path)] == [1, 2]


@pytest.mark.parametrize("rest", ["x" * 10_000, "", "{}\n" + "y" * 9_000])
def test_however_long_it_is(tmp_path, rest):
    path = tmp_path / METRICS_FILE
    path.write_text(rest)
    MetricsFile(path, "run").close()
    assert path.read_text() == ("{}\n" if rest.startswith("{}") else "")


def test_a_disk_that_is_full_is_told_to_whoever_logs_next(tmp_path, monkeypatch):
    metrics = MetricsFile(tmp_path / METRICS_FILE, "run")

    def full(data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics, "_line", lambda row: full(b""))
    metrics.log("silo", "north", 1, "Test:AUC", ONE)
    metrics._thread.join(10)
    with pytest.raises(StorageError, match="No space left"):
        metrics.log("silo", "north", 2, "Test:AUC", ONE)
    with pytest.raises(StorageError, match="No space left"):
        metrics.close()


def test_what_is_no_json_is_told_to_whoever_logs_next(tmp_path):
    metrics = MetricsFile(tmp_path / METRICS_FILE, "run")
    metrics.log("silo", "north", 1, "Test:AUC", Value(float("nan")))
    with pytest.raises(ValueError, match="JSON"):
        metrics.close()


def test_a_reader_waits_for_whole_lines_and_passes_over_what_is_no_row(tmp_path):
    path = tmp_path / METRICS_FILE
    reader = Reader(path)
    assert reader.rows(100) == []
    path.write_text('{"a": 1}\nnot json\n[1]\n{"b": 2')
    assert [row for _, row in reader.rows(1000)] == [{"a": 1}]
    with path.open("a") as file:
        file.write("}\n")
    assert reader.rows(1000) == [(path.stat().st_size, {"b": 2})]
    assert reader.rows(1000) == []


def test_a_reader_takes_so_much_at_once(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text("{}\n" * 100)
    reader, sizes = Reader(path), []
    while rows := reader.rows(30):
        sizes.append(len(rows))
    assert sizes == [10] * 10


@pytest.mark.parametrize("text", [None, "", "{}", '{"run": 1}', "[]"])
def test_a_tracking_json_that_is_none_is_told(tmp_path, text):
    if text is not None:
        (tmp_path / TRACKING_FILE).write_text(text)
    with pytest.raises(RunFolderError, match=r"tracking\.json cannot be read"):
        Recorded(tmp_path)


def test_hyper_parameters_have_the_usual_names():
    from fl_core.strategies.fedprox import FedProx
    from fl_core_mlp.model import MLPParams

    spec = RunSpec.model_validate(
        {
            "dataset": {"name": "heart-disease"},
            "silos": ["cleveland"],
            "model": {"name": "mlp"},
            "strategy": {"name": "fedprox"},
            "rounds": 3,
        }
    )
    found = hyper_parameters(spec, MLPParams(), FedProx.Params(), "cleveland")
    assert found["center"] == "cleveland"
    assert found.keys() >= {
        "learning-rate",
        "batch-size",
        "client-optimizer",
        "weight-decay",
        "epochs",
        "device",
    }
    assert all(isinstance(value, str | int | float | bool) for value in found.values())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
