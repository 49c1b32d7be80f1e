"""Runs that are cut off and go on: to the same model, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fl_core.errors import StorageError
from fl_core.runs import MODEL_FILE, ROUNDS_FILE
from tests.integration.conftest import Fl, fl_process

SpecFile = Callable[..., Path]
ROUNDS = 40
CHANGES = {
    "rounds": ROUNDS,
    "keep_best": "loss",
    "personalisation": {"method": "ditto"},
    "strategy": {"name": "fedadam"},
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that nothing happens to."""
    import yaml

    from tests.integration.conftest import spec

    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "run.yaml").write_text(yaml.safe_dump(spec(**CHANGES)))
    process = fl_process("run", "run.yaml", "--out", "out", cwd=folder)
    assert process.communicate(timeout=120)[1] == ""
    return folder / "out"


@contextmanager
def started(*arguments: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """``fl --json`` as a process, which the block must bring to its end."""
    with fl_process(*arguments, "--json", cwd=cwd) as process:
        try:
            yield process
            process.wait(120)
        finally:
            process.kill()


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ROUNDS_FILE).read_text().splitlines()]


def pid(name: str, run_id: str) -> int:
    """The process of a run's role, by the title that it gives itself."""
    title = f"fl {name} ({run_id})"
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if command.rstrip(b"\0").decode(errors="replace") == title:
            found.append(int(folder.name))
    assert len(found) == 1, (title, found)
    return found[0]


def same_model(folder: Path, undisturbed: Path) -> None:
    assert (folder / MODEL_FILE).read_bytes() == (undisturbed / MODEL_FILE).read_bytes()
    personal = "silos/hungary/personal.safetensors"
    assert (folder / personal).read_bytes() == (undisturbed / personal).read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    before = json.loads((undisturbed / "manifest.json").read_text())
    assert manifest["status"] == "completed"
    assert manifest["model_round"] == before["model_round"]
    assert (folder / "scores.json").read_text() == (undisturbed / "scores.json").read_text()
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize("killed", ["aggregator", "silo hungary"])
def test_a_role_that_is_killed_is_started_again(
    spec_file: SpecFile, tmp_path: Path, undisturbed: Path, killed: str
) -> None:
    seen, met = [], set()
    with started("run", spec_file(**CHANGES), "--out", "out", cwd=tmp_path) as process:
        for event in events(process):
            seen.append(event)
            at = (event["event"], event.get("round"), event.get("silo"))
            if at == ("updated", 5, "cleveland") and at not in met:  # the round may be repeated
                met.add(at)
                os.kill(pid(killed, event["run"]), signal.SIGKILL)
    assert process.returncode == 0, seen[-1]
    assert [e["role"] for e in seen if e["event"] == "restarted"] == [killed]
    same_model(tmp_path / "out", undisturbed)
    rounds = [line["round"] for line in lines(tmp_path / "out")]
    assert sorted(set(rounds)) == list(range(1, ROUNDS + 1))
    assert len(rounds) <= ROUNDS + 1
    assert all(len(line["updates"]) == 4 for line in lines(tmp_path / "out"))


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_cut_off_goes_on_after_its_last_whole_round(
    spec_file: SpecFile, tmp_path: Path, undisturbed: Path, sent: signal.Signals
) -> None:
    with started("run", spec_file(**CHANGES), "--out", "out", cwd=tmp_path) as process:
        for event in events(process):
            if event["event"] == "scored" and event["round"] == 3:
                process.send_signal(sent)
    with started("run", "--resume", "out", cwd=tmp_path) as process:
        seen = list(events(process))
    assert process.returncode == 0, seen[-1]
    resumed = next(event for event in seen if event["event"] == "resumed")
    assert resumed["round"] >= 3
    assert min(e["round"] for e in seen if e["event"] == "round") == resumed["round"] + 1
    same_model(tmp_path / "out", undisturbed)
    assert len(json.loads((tmp_path / "out/manifest.json").read_text())["resumed"]) == 1


LARGE = {"rounds": 6, "model": {"name": "mlp", "params": {"layers": [700, 700]}}}
"""A state of 2 MB: its checkpoints are written while it is sent."""


def test_an_aggregator_that_is_killed_while_it_writes_repeats_that_round(
    fl: Fl, spec_file: SpecFile, tmp_path: Path
) -> None:
    assert fl("run", spec_file(**LARGE), "--out", "undisturbed").code == 0
    seen, killed = [], set()
    with started("run", spec_file(**LARGE), "--out", "out", cwd=tmp_path) as process:
        for event in events(process):
            seen.append(event)
            at = (event["event"], event.get("round"))
            if at == ("sent", 4) and at not in killed:  # told while it is still written, or just so
                killed.add(at)
                os.kill(pid("aggregator", event["run"]), signal.SIGKILL)
    assert process.returncode == 0, seen[-1]
    assert [event["role"] for event in seen if event["event"] == "restarted"] == ["aggregator"]
    rounds = [line["round"] for line in lines(tmp_path / "out")]
    assert sorted(set(rounds)) == list(range(1, 7))
    assert len(rounds) <= 7
    model = (tmp_path / "out" / MODEL_FILE).read_bytes()
    assert model == (tmp_path / "undisturbed" / MODEL_FILE).read_bytes()


def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    spec_file: SpecFile, tmp_path: Path
) -> None:
    script = "import resource, sys; from fl_core.cli import main\n"
    script += (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000)); main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, "run", str(spec_file(**LARGE)), "--out", "out"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == StorageError.exit_code, done.stderr
    assert "checkpoints/round-000000.ckpt" in done.stderr
    assert "File too large" in done.stderr
    assert json.loads((tmp_path / "out/manifest.json").read_text())["status"] == "failed"


def test_a_role_that_is_killed_too_often_ends_the_run(spec_file: SpecFile, tmp_path: Path) -> None:
    seen = []
    with started("run", spec_file(rounds=100_000), "--out", "out", cwd=tmp_path) as process:
        for event in events(process):
            seen.append(event)
            if event["event"] == "joined" and event["silo"] == "hungary":
                os.kill(pid("silo hungary", event["run"]), signal.SIGKILL)
    assert process.returncode == 16
    assert sum(event["event"] == "restarted" for event in seen) == 3
    assert "silo hungary ended without a word" in seen[-1]["error"]["message"]


def test_a_silo_that_is_stopped_for_ever_is_not_waited_for(
    spec_file: SpecFile, tmp_path: Path
) -> None:
    rule = {"min_silos": 3, "deadline": "30s", "grace": "200ms"}
    file = spec_file(rounds=12, quorum=rule)
    with started("run", file, "--out", "out", cwd=tmp_path) as process:
        for event in events(process):
            if event["event"] == "updated" and (event["round"], event["silo"]) == (2, "hungary"):
                os.kill(pid("silo hungary", event["run"]), signal.SIGSTOP)
    assert process.returncode == 0
    made = lines(tmp_path / "out")
    assert len(made) == 12
    last = [update["silo"] for update in made[-1]["updates"]]
    assert last == ["cleveland", "switzerland", "va-long-beach"]


def test_what_cannot_be_resumed_is_told(fl: Fl, spec_file: SpecFile, undisturbed: Path) -> None:
    outcome = fl("run", "--resume", undisturbed)
    assert outcome.code == 14
    assert "is complete" in outcome.err
    outcome = fl("run", "--resume", "nothing")
    assert outcome.code == 14
    outcome = fl("run", "--resume", undisturbed, "--seed", "3")
    assert outcome.code == 2
    assert "leave out FILE and the rest" in outcome.err


def test_fewer_silos_than_the_quorum_are_told(fl: Fl, spec_file: SpecFile) -> None:
    outcome = fl("check", spec_file(quorum={"min_silos": 3}), "--silos", "cleveland,hungary")
    assert outcome.code == 10
    assert "--silos: quorum.min_silos is 3, but silos has 2" in outcome.err
