"""Whole runs with real processes: what they give, that they repeat, what they touch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fl_core import runs
from fl_core.cli import progress
from tests.integration.conftest import ROOT, Fl, children_of, fl_process, spec

SpecFile = Callable[..., Path]
HOSPITALS = spec()["silos"]


def _metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_run_folder_holds_what_the_docs_say(fl: Fl, spec_file: SpecFile) -> None:
    outcome = fl("run", spec_file(), "--out", "out")
    assert outcome.code == 0, outcome.err
    folder = Path("out")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "completed"
    assert manifest["rows"]["cleveland"] == {"train": 169, "validation": 30, "test": 104}
    assert set(manifest["certificates_sha256"]) == {"aggregator", *HOSPITALS}
    assert {"fl-core", "fl-core-mlp"} <= {p["distribution"] for p in manifest["plugins"]}
    for name, digest in manifest["files"].items():
        assert runs.sha256((folder / name).read_bytes()) == digest
    assert set(load_file(folder / "model.safetensors")) == {
        "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias",
    }  # fmt: skip
    for silo in HOSPITALS:
        assert "rows" in (folder / "silos" / silo / "log.txt").read_text()
    rows = _metrics(folder)
    assert {row["run"] for row in rows} == {manifest["id"]}
    pooled = {(r["name"], r["round"]): r["value"] for r in rows if r["role"] == "aggregator"}
    for name in ("Training:Loss", "Validation:AUC", "Test:AUC", "Test:Loss", "Test:Accuracy"):
        assert {key[1] for key in pooled if key[0] == name} == {1, 2}
        for silo in HOSPITALS:
            own = [r["round"] for r in rows if r["silo"] == silo and r["name"] == name]
            assert own == [1, 2]


def test_the_aggregators_auc_is_that_of_the_pooled_predictions(
    fl: Fl, spec_file: SpecFile, tmp_path: Path
) -> None:
    """``fl predict`` on all test rows at once, scored pair by pair, gives the logged figure."""
    import csv

    from fl_core.datasets.heart_disease import shipped

    assert fl("run", spec_file(rounds=3), "--out", "out").code == 0
    tests = [
        row
        for name in HOSPITALS
        for row in csv.DictReader(shipped(name).read_text().splitlines())
        if row["fold"] == "test"
    ]
    data = tmp_path / "all.csv"
    with data.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(tests[0]))
        writer.writeheader()
        writer.writerows(tests)
    outcome = fl("predict", "out", data)
    assert outcome.code == 0, outcome.err
    scores = np.array([float(line["score"]) for line in csv.DictReader(outcome.out.splitlines())])
    labels = np.array([row["num"] not in ("0", "0.0") for row in tests])
    differences = scores[labels][:, None] - scores[~labels][None, :]
    exact = ((differences > 0) + 0.5 * (differences == 0)).mean()
    rows = _metrics(Path("out"))
    logged = [r["value"] for r in rows if r["name"] == "Test:AUC" and r["role"] == "aggregator"][-1]
    assert logged == pytest.approx(exact, abs=2e-3)  # pairs that share one of 1024 bins
    accuracy = [
        r["value"] for r in rows if r["name"] == "Test:Accuracy" and r["role"] == "aggregator"
    ][-1]
    assert accuracy == pytest.approx(((scores >= 0.5) == labels).mean())


ORDER = """
    import json, pathlib, time
    from fl_core.hookspecs import hookimpl

    ORDER = {order!r}
    METRICS = pathlib.Path({metrics!r})

    def taken(silo, round):
        rows = (json.loads(line) for line in METRICS.read_text().splitlines())
        return (silo, round) in [(r["silo"], r["round"]) for r in rows if r["name"] == "Bytes:Up"]

    @hookimpl
    def after_fit(run_id, context, update):
        place = ORDER.index(context.silo)
        while place and not taken(ORDER[place - 1], context.round):
            time.sleep(0.005)
"""


@pytest.mark.parametrize("model", ["mlp", "xgboost"])
def test_the_same_seed_gives_the_same_bytes_in_any_order_of_answers(
    fl: Fl, spec_file: SpecFile, plugin: Callable[[str, str], Path], model: str
) -> None:
    strategy = {"mlp": "fedavg", "xgboost": "bagging"}[model]
    file = spec_file(model={"name": model}, strategy={"name": strategy}, rounds=3)
    assert fl("run", file, "--out", "plain").code == 0
    assert fl("run", file, "--out", "other", "--seed", "5").code == 0
    metrics = str(Path("reversed/metrics.jsonl").absolute())
    plugin("order", ORDER.format(order=HOSPITALS[::-1], metrics=metrics))
    assert fl("run", file, "--out", "reversed").code == 0
    plain, reverse, other = (
        Path(name, "model.safetensors").read_bytes() for name in ("plain", "reversed", "other")
    )
    updates = [r["silo"] for r in _metrics(Path("reversed")) if r["name"] == "Bytes:Up"]
    assert updates == HOSPITALS[::-1] * 3
    assert plain == reverse
    if model == "mlp":
        assert plain != other


def test_plain_lines_without_a_terminal_and_json_for_programs(fl: Fl, spec_file: SpecFile) -> None:
    plain = fl("run", spec_file(), "--out", "plain").out
    assert re.search(r"round 2/2  Validation:AUC 0\.\d{4}  Test:AUC", plain)
    assert "plain/report.html" in plain
    lines = fl("run", spec_file(), "--out", "json", "--json").out.splitlines()
    events = [json.loads(line) for line in lines]
    assert events[-1]["event"] == "completed"
    assert events[-1]["figures"]["pooled"]["Test:AUC"] > 0.5
    assert {"listening", "joined", "rows", "round", "updated", "scored"} <= {
        event["event"] for event in events
    }


def test_set_silos_and_seed_change_the_run(fl: Fl, spec_file: SpecFile) -> None:
    outcome = fl(
        "run", spec_file(), "--out", "out", "--set", "rounds=1", "--set",
        "model.params.learning_rate=0.2", "--silos", "hungary,cleveland", "--seed", "9",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = json.loads(Path("out/manifest.json").read_text())["spec"]
    assert [silo["name"] for silo in found["silos"]] == ["cleveland", "hungary"]
    assert (found["rounds"], found["seed"]) == (1, 9)
    assert found["model"]["params"]["learning_rate"] == 0.2


def test_runs_are_listed_shown_and_reported_again(fl: Fl, spec_file: SpecFile) -> None:
    assert fl("run", spec_file(rounds=1)).code == 0
    (listed,) = json.loads(fl("runs", "list", "--json").out)
    assert listed["id"] in fl("runs", "list").out
    shown = fl("runs", "show", listed["id"])
    assert "completed" in shown.out
    assert "pooled" in shown.out
    report = Path("runs", listed["id"], "report.html")
    before = report.read_bytes()
    report.unlink()
    assert fl("report", listed["id"]).code == 0
    assert report.read_bytes() == before
    missing = fl("runs", "show", "smal")
    assert (missing.code, listed["id"] in missing.err) == (14, True)


def test_a_changed_model_file_is_not_used(fl: Fl, spec_file: SpecFile) -> None:
    assert fl("run", spec_file(rounds=1), "--out", "out").code == 0
    with Path("out/model.safetensors").open("ab") as file:
        file.write(b"x")
    header = "age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak"
    Path("rows.csv").write_text(f"{header}\n63,1,1,145,233,1,2,150,0,2.3\n")
    outcome = fl("predict", "out", "rows.csv")
    assert outcome.code == 14
    assert "SHA-256 differs" in outcome.err


def test_plain_xgboost_loads_the_exported_booster(fl: Fl, spec_file: SpecFile) -> None:
    import xgboost

    file = spec_file(model={"name": "xgboost"}, strategy={"name": "bagging"})
    assert fl("run", file, "--out", "out").code == 0
    booster = xgboost.Booster(model_file="out/model.xgboost.json")
    assert booster.num_boosted_rounds() == 8


def test_the_own_csv_example(fl: Fl) -> None:
    example = ROOT / "examples/own-csv/run.yaml"
    checked = fl("check", example)
    assert checked.code == 0, checked.err
    assert "north" in checked.out
    outcome = fl("run", example, "--out", "out", "--set", "rounds=2")
    assert outcome.code == 0, outcome.err


def test_lists_of_plugins_datasets_and_the_schema(fl: Fl) -> None:
    plugins = json.loads(fl("plugins", "--json").out)
    mlp = next(plugin for plugin in plugins if plugin["distribution"] == "fl-core-mlp")
    assert mlp["models"] == ["mlp"]
    assert "register_models" in mlp["hooks"]
    assert "fl-core-xgboost" in fl("plugins").out
    assert {d["name"] for d in json.loads(fl("datasets", "--json").out)} == {"heart-disease", "csv"}
    assert "va-long-beach" in fl("datasets").out
    assert json.loads(fl("spec", "schema").out)["properties"]["rounds"]["minimum"] == 1


# --- as processes of their own


def _wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited state did not come"
        time.sleep(0.02)


def _titles(pids: list[int]) -> list[str]:
    titles = []
    for pid in pids:
        try:
            titles.append(Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return titles


def test_in_a_terminal_it_is_a_live_table(spec_file: SpecFile, tmp_path: Path) -> None:
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fl_core.cli", "run", str(spec_file(rounds=10)), "--out", "out"],
        cwd=tmp_path,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(controller, 65536)
        except OSError:  # the terminal's last user is gone
            break
        shown += part
    os.close(controller)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    for words in ("training rows", "cleveland", "10/10", "━", "left", "Test:AUC 0.", "done"):
        assert words in text, words


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_no_process_and_says_so(
    spec_file: SpecFile, tmp_path: Path, sent: signal.Signals
) -> None:
    process = fl_process("run", spec_file(rounds=100_000), "--out", "out", cwd=tmp_path)
    metrics = tmp_path / "out/metrics.jsonl"
    _wait_for(lambda: metrics.exists() and "Test:AUC" in metrics.read_text())
    roles = children_of(process.pid)
    titles = _titles(roles)
    for silo in HOSPITALS:
        assert any(title.startswith(f"fl silo {silo} ") for title in titles), titles
    assert any(title.startswith("fl aggregator ") for title in titles)
    if sent is signal.SIGTERM:
        process.send_signal(sent)
    else:  # as a terminal does: to every process of the group
        os.killpg(process.pid, sent)
    _, err = _ended(process)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    assert (tmp_path / "out/report.html").exists()
    _wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in roles))


def test_ctrl_c_while_code_in_a_string_runs_has_the_exit_code_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "from fl_core import cli\n"
        "cli._run = lambda arguments: exec('raise KeyboardInterrupt')\n"
        "cli.main([])\n"
    )
    command = [sys.executable, "-m", "interrupted"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("seconds", [0.6, 1.0, 1.5, 2.0, 2.5])
def test_ctrl_c_at_any_moment_before_the_first_round(
    spec_file: SpecFile, tmp_path: Path, seconds: float
) -> None:
    process = fl_process("run", spec_file(rounds=100_000), "--out", "out", cwd=tmp_path)
    time.sleep(seconds)  # the moment is what is tested, whatever happens to be going on
    os.killpg(process.pid, signal.SIGINT)
    out, err = _ended(process)
    assert "Traceback" not in err, err
    assert process.returncode == 130, (out, err)
    if (tmp_path / "out").exists():
        manifest = json.loads((tmp_path / "out/manifest.json").read_text())
        assert manifest["status"] == "interrupted"
    _wait_for(lambda: not _in_group(process.pid))


def test_ctrl_c_in_a_run_counts_even_where_python_drops_its_exception(
    fl: Fl, spec_file: SpecFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_event(self: object, event: dict[str, object]) -> None:
        if event["event"] == "listening":
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress._Lines, "on_event", on_event)
    outcome = fl("run", spec_file(rounds=100_000), "--out", "out")
    assert outcome.code == 130, outcome.err
    assert json.loads(Path("out/manifest.json").read_text())["status"] == "interrupted"


def _ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process says until it has ended; it does not outlive the test."""
    with process:
        try:
            return process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def _in_group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_enough_ends_the_run_without_a_traceback(
    spec_file: SpecFile, tmp_path: Path, unbuffered: str
) -> None:
    command = [sys.executable, "-m", "fl_core.cli", "run", str(spec_file(rounds=100_000))]
    process = subprocess.Popen(
        [*command, "--out", "out"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 130, err
    assert "Traceback" not in err
    assert json.loads((tmp_path / "out/manifest.json").read_text())["status"] == "interrupted"
    assert (tmp_path / "out/report.html").exists()


def test_no_module_comes_from_the_folder_where_fl_is_called(
    spec_file: SpecFile, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("torch", "queue", "random", "fedml", "socket", "numpy"):
        (folder / f"{name}.py").write_text("open('hijacked', 'w')\n")
    command = Path(sys.executable).with_name("fl")
    outcome = subprocess.run(
        [str(command), "run", str(spec_file(rounds=1)), "--out", "out"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert not (folder / "hijacked").exists()


def test_only_the_owner_may_look_into_a_run_folder(fl: Fl, spec_file: SpecFile) -> None:
    assert fl("run", spec_file(rounds=1), "--out", "out").code == 0
    assert Path("out").stat().st_mode & 0o777 == 0o700


def test_a_killed_run_takes_its_roles_along(spec_file: SpecFile, tmp_path: Path) -> None:
    process = fl_process("run", spec_file(rounds=100_000), "--out", "out", cwd=tmp_path)
    metrics = tmp_path / "out/metrics.jsonl"
    _wait_for(lambda: metrics.exists() and "Test:AUC" in metrics.read_text())
    roles = children_of(process.pid)
    process.kill()
    _ended(process)
    _wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in roles))


def test_no_connection_but_loopback_and_no_file_outside_the_run_folder(
    spec_file: SpecFile, tmp_path: Path
) -> None:
    """Every connect, bind and file that is opened for writing, in every process, by strace."""
    home = tmp_path / "home"
    home.mkdir()
    with tempfile.TemporaryDirectory() as temporary:
        _trace_a_run(spec_file(), tmp_path, home, Path(temporary))
        assert list(Path(temporary).rglob("*")) == []
    assert list(home.rglob("*")) == []


def _trace_a_run(file: Path, tmp_path: Path, home: Path, temporary: Path) -> None:
    trace = tmp_path / "trace"
    trace.mkdir()
    calls = "connect,bind,sendto,openat,creat,mkdir,rename,renameat2,unlink"
    # A file for each process, since in one file calls of several are split and interleaved.
    command = ["strace", "-ff", "-qq", "-s", "300", "-e", f"trace={calls}"]
    command += ["-o", str(trace / "of")]
    outcome = subprocess.run(
        [*command, sys.executable, "-m", "fl_core.cli", "run", str(file), "--out", "out"],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(home), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    lines = [line for one in trace.iterdir() for line in one.read_text().splitlines()]
    addresses = set()
    for line in lines:
        if re.search(r"\b(connect|bind|sendto)\(", line):
            addresses |= set(re.findall(r'(?:inet_addr|inet_pton\(AF_INET6,) ?\(?"([^"]+)"', line))
    assert addresses
    assert {a for a in addresses if a not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")} == set()
    written = set()
    for line in lines:
        match = re.search(
            r'(?:openat\(AT_FDCWD, "([^"]+)", [A-Z_|]*(?:O_WRONLY|O_RDWR|O_CREAT)'
            r'|(?:creat|mkdir)\("([^"]+)")',
            line,
        )
        if match and "= -1" not in line:
            written.add(str((tmp_path / (match.group(1) or match.group(2))).resolve()))
    assert str(tmp_path / "out/metrics.jsonl") in written
    outside = {
        path
        for path in written
        if not path.startswith((str(tmp_path / "out"), "/dev/", "/proc/", str(temporary)))
        and "__pycache__" not in path
    }
    assert outside == set()


def test_a_long_path_for_temporary_files(spec_file: SpecFile, tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    process = fl_process("run", spec_file(rounds=1), "--out", "out", cwd=tmp_path, TMPDIR=str(long))
    _, err = process.communicate(timeout=100)
    assert process.returncode == 0, err


def test_it_works_with_no_network_at_all(spec_file: SpecFile, tmp_path: Path) -> None:
    """In a network name space that has a loopback interface and nothing else."""
    script = 'ip link set lo up && exec "$@"'
    command = [sys.executable, "-m", "fl_core.cli", "run", str(spec_file()), "--out", "out"]
    outcome = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", script, "sh", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr


def test_no_key_is_written_anywhere(fl: Fl, spec_file: SpecFile) -> None:
    assert fl("run", spec_file(), "--out", "out").code == 0
    for path in Path("out").rglob("*"):
        assert path.is_dir() or b"PRIVATE KEY" not in path.read_bytes()


def test_fl_plugins_restricts_what_is_loaded(spec_file: SpecFile, tmp_path: Path) -> None:
    process = fl_process("check", spec_file(), cwd=tmp_path, FL_PLUGINS="fl-core-xgboost")
    _, err = _ended(process)
    assert process.returncode == 11
    assert "unknown model 'mlp'" in err
