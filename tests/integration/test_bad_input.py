"""Bad input: one clear message, its exit code, no process and no half-written file."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import PROBE, Fl, children_of, spec

SpecFile = Callable[..., Path]
SILOS = spec()["silos"]

BEFORE_TRAINING = [
    pytest.param({"model": {"name": "mpl"}}, 11, ["run.yaml:10", "'mpl'", "'mlp'"], id="model"),
    pytest.param({"strategy": {"name": "fedavgg"}}, 11, ["'fedavgg'", "'fedavg'"], id="strategy"),
    pytest.param({"dataset": {"name": "heart"}}, 11, ["run.yaml:3", "'heart'"], id="dataset"),
    pytest.param(
        {"silos": ["cleveland", "hungaria"]},
        10,
        ["run.yaml:6", "'hungaria'", "'hungary'"],
        id="silo",
    ),
    pytest.param(
        {"model": {"name": "mlp", "params": {"learningrate": 1}}},
        12,
        ["run.yaml:12", "model.params.learningrate", "'learning_rate'"],
        id="parameter",
    ),
    pytest.param(
        {"model": {"name": "mlp", "params": {"learning_rate": -3}}},
        12,
        ["run.yaml:12", "model.params.learning_rate", "greater than 0", "-3"],
        id="bounds",
    ),
    pytest.param(
        {"strategy": {"name": "bagging"}}, 12, ["'mlp'", "'bagging'", "fedprox"], id="unsupported"
    ),
    pytest.param({"rounds": 0}, 10, ["rounds", "greater than or equal to 1", "0"], id="rounds"),
    pytest.param({"colour": "red"}, 10, ["colour", "unknown field", "'red'"], id="field"),
]


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(("changes", "code", "said"), BEFORE_TRAINING)
def test_a_bad_run_file_is_refused_with_its_place(
    fl: Fl, spec_file: SpecFile, tmp_path: Path, command: str, changes: dict, code: int, said: list
) -> None:
    outcome = fl(command, spec_file(**changes))
    assert outcome.code == code, outcome.err
    for words in said:
        assert words in outcome.err
    assert "what to do: " in outcome.err
    assert f"docs/errors/{code}.md" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "runs").exists()


SCHEMA = """
columns:
  age: {kind: number, minimum: 0, maximum: 120}
  sex: {kind: category, values: [f, m]}
label: {column: ill, negative: [0], positive: [1]}
"""
GOOD = "age,sex,ill\n" + "".join(f"{30 + i},{'fm'[i % 2]},{i // 2 % 2}\n" for i in range(40))
CSV_FAULTS = [
    pytest.param("age,ill\n50,1\n", ["b.csv:1", "'sex'", "missing"], id="column"),
    pytest.param(GOOD + "old,f,1\n", ["b.csv:42", "'age'", "'old'", "not a number"], id="text"),
    pytest.param(GOOD + "50,x,1\n", ["b.csv:42", "'sex'", "'x'", "known: f, m"], id="category"),
    pytest.param("", ["b.csv", "empty"], id="empty"),
    pytest.param(GOOD + "50,f,2\n", ["b.csv:42", "'ill'", "'2'", "label"], id="label"),
    pytest.param(GOOD + "150,f,1\n", ["b.csv:42", "'age'", "'150'", "120"], id="bounds"),
    pytest.param("age,sex,ill\n", ["'b'", "0 usable rows"], id="no-row"),
    pytest.param(None, ["b.csv", "No such file"], id="no-file"),
]


def _csv_spec(spec_file: SpecFile, folder: Path, b: str | None, **changes: object) -> Path:
    (folder / "schema.yaml").write_text(SCHEMA)
    (folder / "a.csv").write_text(GOOD)
    if b is not None:
        (folder / "b.csv").write_text(b)
    return spec_file(
        dataset={"name": "csv", "params": {"schema_file": "schema.yaml"}},
        silos=[{"name": "a", "data": "a.csv"}, {"name": "b", "data": "b.csv"}],
        **changes,
    )


@pytest.mark.parametrize(("b", "said"), CSV_FAULTS)
def test_a_bad_csv_is_refused_with_file_line_and_value(
    fl: Fl, spec_file: SpecFile, tmp_path: Path, b: str | None, said: list
) -> None:
    outcome = fl("run", _csv_spec(spec_file, tmp_path, b))
    assert outcome.code == 13, outcome.err
    for words in said:
        assert words in outcome.err
    assert not (tmp_path / "runs").exists()


def test_a_silo_with_one_class_takes_part_and_its_auc_is_undefined_with_the_reason(
    fl: Fl, spec_file: SpecFile, tmp_path: Path
) -> None:
    one_class = "age,sex,ill\n" + "".join(f"{30 + i},f,1\n" for i in range(30))
    outcome = fl("run", _csv_spec(spec_file, tmp_path, one_class), "--out", "out")
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    undefined = [row for row in rows if row["name"] == "Test:AUC" and row["silo"] == "b"]
    assert {row["value"] for row in undefined} == {None}
    assert {row["reason"] for row in undefined} == {"one class only: no negative row"}
    assert "undefined" in outcome.out
    assert "one class only" in Path("out/report.html").read_text()


FAULTS = [
    pytest.param("raises", 16, ["'hungary'", "'probe'", "ValueError", "round 2"], id="raises"),
    pytest.param("exits", 16, ["hungary", "exit code 9"], id="exits"),
    pytest.param("nan", 17, ["'hungary'", "'w'", "not finite", "round 2"], id="nan"),
    pytest.param("nan-loss", 17, ["'hungary'", "training loss is nan"], id="nan-loss"),
    pytest.param("shape", 17, ["'hungary'", "'w'", "[2]", "[3]"], id="shape"),
    pytest.param("large", 17, ["'hungary'", "max_state_bytes", "65536"], id="large"),
    pytest.param("weight", 17, ["'hungary'", "weight 10000"], id="weight"),
    pytest.param("predict-nan", 17, ["predicted", "NaN"], id="predict-nan"),
    pytest.param("predict-shape", 17, ["predicted", "2]"], id="predict-shape"),
]


@pytest.mark.parametrize(("fault", "code", "said"), FAULTS)
def test_a_faulty_model_ends_the_run_with_its_name(
    fl: Fl, spec_file: SpecFile, probe: Path, tmp_path: Path, fault: str, code: int, said: list
) -> None:
    before = set(children_of(os.getpid()))
    model = {"name": "probe", "params": {"fault": fault}}
    outcome = fl("run", spec_file(model=model, max_state_bytes=65536), "--out", "out")
    assert outcome.code == code, outcome.err
    for words in said:
        assert words in outcome.err
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert manifest["exit_code"] == manifest["error"]["code"] == code
    assert (tmp_path / "out/report.html").exists()
    assert not list((tmp_path / "out").rglob("*.part"))
    assert not multiprocessing.active_children()
    left = set(children_of(os.getpid())) - before
    assert [pid for pid in left if "fl silo" in _title(pid) or "fl aggregator" in _title(pid)] == []


STRATEGY = """
    from fl_core.hookspecs import hookimpl
    from fl_core.strategies.fedavg import FedAvg

    class Broken(FedAvg):
        name = "broken"

        def {method}(self, *arguments):
            {body}

    @hookimpl
    def register_strategies(register):
        register(Broken)
"""
HOOK = """
    from fl_core.hookspecs import hookimpl

    @hookimpl
    def {hook}({arguments}):
        raise LookupError("hook went wrong")
"""


@pytest.mark.parametrize(
    ("method", "body", "said"),
    [
        ("select", "return []", ["'broken' in select, round 1", "chose []"]),
        ("select", "return ['nowhere']", ["'broken' in select", "nowhere"]),
        ("finish", "raise KeyError('w')", ["'broken' in finish, round 1", "KeyError"]),
        ("add", "raise KeyError('w')", ["'broken' in add, round 1", "KeyError"]),
    ],
)
def test_a_faulty_strategy_ends_the_run_with_its_name(
    fl: Fl,
    spec_file: SpecFile,
    plugin: Callable[[str, str], Path],
    method: str,
    body: str,
    said: list,
) -> None:
    plugin("probe", PROBE.replace('("fedavg",)', '("broken",)'))
    plugin("broken", STRATEGY.format(method=method, body=body))
    outcome = fl("run", spec_file(model={"name": "probe"}, strategy={"name": "broken"}))
    assert outcome.code == 16, outcome.err
    for words in said:
        assert words in outcome.err


@pytest.mark.parametrize(
    ("hook", "arguments"),
    [
        ("before_run", "run_id"),
        ("after_run", "status"),
        ("before_round", "round"),
        ("after_round", "metrics"),
        ("before_fit", "context"),
        ("after_fit", "update"),
    ],
)
def test_a_hook_that_raises_ends_the_run_with_its_name(
    fl: Fl, spec_file: SpecFile, plugin: Callable[[str, str], Path], hook: str, arguments: str
) -> None:
    plugin("hooked", HOOK.format(hook=hook, arguments=arguments))
    outcome = fl("run", spec_file())
    assert outcome.code == 11, outcome.err
    for words in (f"hook {hook}", "LookupError", "hook went wrong", "FL_PLUGINS"):
        assert words in outcome.err


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_an_error_text_stays_in_its_silo(
    fl: Fl, spec_file: SpecFile, probe: Path, tmp_path: Path
) -> None:
    fl("run", spec_file(model={"name": "probe", "params": {"fault": "raises"}}), "--out", "out")
    assert "54321" in (tmp_path / "out/silos/hungary/log.txt").read_text()
    assert "54321" not in (tmp_path / "out/log.txt").read_text()


def test_a_port_taken(fl: Fl, spec_file: SpecFile) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        outcome = fl("run", spec_file(), "--port", port, "--out", "out")
    assert outcome.code == 15, outcome.err
    assert port in outcome.err
    assert "--port" in outcome.err


def test_a_run_folder_that_exists_is_left_as_it_is(
    fl: Fl, spec_file: SpecFile, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    outcome = fl("run", spec_file(), "--out", "out")
    assert outcome.code == 14
    assert "out exists" in outcome.err
    assert list((tmp_path / "out").iterdir()) == []


def _on_disk(mount: str, folder: Path, spec_path: Path) -> subprocess.CompletedProcess[str]:
    """``fl run`` into folder/disk, which ``mount`` has mounted in a name space of its own."""
    (folder / "disk").mkdir()
    script = f'{mount}; shift 0; "$@"; code=$?; find disk -name "*.part"; exit $code'
    command = [sys.executable, "-m", "fl_core.cli", "run", str(spec_path), "--out", "disk/out"]
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_full_disk(spec_file: SpecFile, tmp_path: Path) -> None:
    outcome = _on_disk(
        "mount -t tmpfs -o size=16k none disk", tmp_path, spec_file(rounds=50, seed=2)
    )
    assert outcome.returncode == 18, outcome.stderr
    assert "No space left on device" in outcome.stderr
    assert "free space" in outcome.stderr
    assert ".part" not in outcome.stdout


def test_a_read_only_disk(spec_file: SpecFile, tmp_path: Path) -> None:
    mount = "mount --bind disk disk && mount -o remount,ro,bind disk"
    outcome = _on_disk(mount, tmp_path, spec_file())
    assert outcome.returncode == 18, outcome.stderr
    assert "Read-only file system" in outcome.stderr
    assert "--out" in outcome.stderr


def test_json_tells_errors_to_programs(fl: Fl, spec_file: SpecFile) -> None:
    outcome = fl("run", spec_file(rounds=0), "--json")
    assert outcome.code == 10
    error = json.loads(outcome.out)["error"]
    assert (error["code"], error["title"]) == (10, "run file")


def test_a_wrong_call_is_code_2(fl: Fl) -> None:
    outcome = fl("run")
    assert outcome.code == 2
    assert "FILE" in outcome.err
