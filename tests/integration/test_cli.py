"""The commands beside ``fl run``'s training: what they take, what they say, what they refuse."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import PROBE, Fl, Outcome

SpecFile = Callable[..., Path]
SCHEMA = """\
columns:
  age: {kind: number, minimum: 0, maximum: 120}
  sex: {kind: category, values: [f, m]}
label: {column: ill, negative: [0], positive: [1]}
"""
ROWS = "age,sex,ill\n" + "".join(f"{30 + i},{'fm'[i % 2]},{i // 2 % 2}\n" for i in range(40))


@pytest.fixture
def csv_file(spec_file: SpecFile, tmp_path: Path) -> SpecFile:
    """A run file of two silos with csv files of their own."""

    def write(b: str = ROWS, **changes: object) -> Path:
        (tmp_path / "schema.yaml").write_text(SCHEMA)
        (tmp_path / "a.csv").write_text(ROWS)
        (tmp_path / "b.csv").write_text(b)
        silos = [{"name": "a", "data": "a.csv"}, {"name": "b", "data": "b.csv"}]
        dataset = {"name": "csv", "params": {"schema_file": "schema.yaml"}}
        return spec_file(**{"dataset": dataset, "silos": silos, **changes})

    return write


def refused(outcome: Outcome, code: int, *said: str) -> None:
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    for words in said:
        assert words in outcome.err


def test_check_counts_the_rows_of_each_silo(fl: Fl, csv_file: SpecFile) -> None:
    outcome = fl("check", csv_file())
    assert outcome.code == 0, outcome.err
    assert "is good: mlp, fedavg, 2 rounds, 2 features" in outcome.out
    assert "a: 22 train, 4 validation, 14 test rows" in outcome.out
    assert json.loads(fl("check", csv_file(), "--json").out)["rows"]["b"]["train"] == 22
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("b", "said"),
    [
        (ROWS + "old,f,1\n", "b.csv:42: column 'age': value 'old' is not a number"),
        (ROWS + "121,f,1\n", "b.csv:42: column 'age': value '121' is not from 0 to 120"),
        ("age,ill\n50,1\n", "b.csv:1: column 'sex' is missing"),
        ("age,sex,ill\n", "b.csv: silo 'b' has 0 usable rows"),
    ],
)
def test_check_refuses_a_bad_csv(fl: Fl, csv_file: SpecFile, b: str, said: str) -> None:
    refused(fl("check", csv_file(b)), 13, said)


def test_a_bad_schema_is_named_with_its_line(fl: Fl, csv_file: SpecFile, tmp_path: Path) -> None:
    path = csv_file()
    (tmp_path / "schema.yaml").write_text(SCHEMA.replace("kind: number, ", ""))
    refused(fl("check", path), 13, "schema.yaml:2: columns.age.kind: must be number or category")


def test_silos_chooses_among_the_run_files_silos(fl: Fl, spec_file: SpecFile) -> None:
    outcome = fl("check", spec_file(), "--silos", "hungary, cleveland", "--json")
    assert list(json.loads(outcome.out)["rows"]) == ["cleveland", "hungary"]
    refused(fl("check", spec_file(), "--silos", "hungaria"), 10, "'hungaria'", "'hungary'")
    refused(fl("check", spec_file(), "--silos", ""), 10, "--silos: the run file has no silo ''")


def test_an_error_of_a_chosen_silo_names_its_own_line(fl: Fl, spec_file: SpecFile) -> None:
    path = spec_file(silos=["cleveland", "hungary", "nowhere"])
    assert path.read_text().splitlines()[6] == "- nowhere"
    refused(fl("check", path, "--silos", "nowhere"), 10, "run.yaml:7: silos.2: ", "'nowhere'")


def test_a_wrong_seed_is_named_by_its_option(fl: Fl, spec_file: SpecFile) -> None:
    outcome = fl("check", spec_file(), "--seed", "-1")
    refused(outcome, 10, "): --seed: must be greater than or equal to 0 (value -1)")


@pytest.mark.parametrize("command", ["check", "run"])
def test_an_initial_state_that_cannot_travel_is_refused_before_training(
    fl: Fl, spec_file: SpecFile, command: str
) -> None:
    outcome = fl(
        command,
        spec_file(model={"name": "mlp", "params": {"layers": [64]}}),
        "--set",
        "max_state_bytes=2000",
    )
    refused(
        outcome, 12, "--set max_state_bytes: max_state_bytes: ", "bytes, over the limit of 2000"
    )
    assert not Path("runs").exists()


def test_a_model_without_an_initial_state_is_refused_before_training(
    fl: Fl, spec_file: SpecFile, probe: Path
) -> None:
    path = spec_file(model={"name": "probe", "params": {"fault": "initial_state"}})
    for command in ("check", "run"):
        refused(fl(command, path), 16, "model 'probe' in initial_state raised KeyError")
    assert not Path("runs").exists()


def test_a_run_kept_elsewhere_is_found_by_its_id(fl: Fl, csv_file: SpecFile) -> None:
    assert fl("run", csv_file(rounds=1), "--out", "runs/mine").code == 0
    run_id = json.loads(Path("runs/mine/manifest.json").read_text())["id"]
    assert run_id in fl("runs", "list").out
    assert f"{run_id}: completed" in fl("runs", "show", run_id).out
    assert fl("predict", run_id, "a.csv").code == 0
    outcome = fl("report", run_id, "--json")
    assert json.loads(outcome.out) == {"report": "runs/mine/report.html"}
    assert fl("report", run_id).out == "runs/mine/report.html\n"


def test_odd_folders_do_not_keep_the_others_from_being_listed(
    fl: Fl, csv_file: SpecFile, tmp_path: Path
) -> None:
    assert fl("run", csv_file(rounds=1), "--out", "runs/good").code == 0
    manifest = json.loads(Path("runs/good/manifest.json").read_text())
    odd = {"no-spec": {"spec": {}}, "number": {"started": 5}, "kept": {"id": "no-figures"}}
    for name, changes in odd.items():
        (tmp_path / "runs" / name).mkdir()
        path = tmp_path / "runs" / name / "manifest.json"
        path.write_text(json.dumps({**manifest, **changes}))
    for metrics in ('{"name": "Test:AUC", "silo": null, "round": 1}\n', "garbage\n"):
        (tmp_path / "runs/kept/metrics.jsonl").write_text(metrics)
        outcome = fl("runs", "list")
        assert outcome.code == 0, outcome.err
        listed = {line.split()[0]: line.split()[1:] for line in outcome.out.splitlines()[1:]}
        assert listed.keys() == {manifest["id"], "no-figures"}
        assert len(listed["no-figures"]) == len(listed[manifest["id"]]) - 1
        refused(fl("runs", "show", "no-figures"), 14, "metrics.jsonl")
    refused(fl("runs", "show", "x" * 300), 14, "no run")


@pytest.fixture
def trained(fl: Fl, csv_file: SpecFile) -> Path:
    """The folder of a finished run on two csv files."""
    assert fl("run", csv_file(rounds=1), "--out", "out").code == 0
    return Path("out")


def test_predict_scores_rows_and_passes_over_columns_of_no_use(
    fl: Fl, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "new.csv").write_text("note,sex,age\nx,f,40\ny,m,50\n")
    outcome = fl("predict", trained, "new.csv")
    assert outcome.code == 0, outcome.err
    header, *rows = outcome.out.splitlines()
    assert header == "row,score"
    assert [row.split(",")[0] for row in rows] == ["1", "2"]
    assert all(0 < float(row.split(",")[1]) < 1 for row in rows)
    assert fl("predict", trained, "new.csv", "--out", "scores.csv").out == ""
    assert Path("scores.csv").read_text() == outcome.out


def test_predict_fills_what_is_missing(fl: Fl, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("age,sex\n,f\n40,\n")
    outcome = fl("predict", trained, "new.csv")
    assert outcome.code == 0, outcome.err
    assert len(outcome.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("age\n40\n", "new.csv:1: column 'sex' is missing"),
        ("age,sex\n40,f,1\n", "new.csv:2: 3 cells, but 2 columns"),
        ("age,sex\n40,x\n", "new.csv:2: column 'sex': value 'x'"),
        ("age,sex\n", "new.csv has no rows"),
        (None, "new.csv: No such file"),
    ],
)
def test_predict_refuses_rows_that_it_cannot_read(
    fl: Fl, trained: Path, tmp_path: Path, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "new.csv").write_text(content)
    refused(fl("predict", trained, "new.csv"), 13, said)


@pytest.mark.parametrize(
    ("scores", "code", "said"),
    [
        ("1 / 0", 16, "model 'probe' in predict raised ZeroDivisionError"),
        ("'high'", 16, "model 'probe' in predict raised ValueError"),
        ("np.full(len(table), np.nan)", 17, "model 'probe' in predict: gave an array of shape"),
        ("np.full(len(table), 1.5)", 17, "not that many numbers from 0 to 1"),
        ("np.zeros((len(table), 2))", 17, "shape [40, 2] for 40 rows"),
    ],
)
def test_wrong_scores_are_blamed_on_the_model(
    fl: Fl,
    csv_file: SpecFile,
    plugin: Callable[[str, str], Path],
    tmp_path: Path,
    scores: str,
    code: int,
    said: str,
) -> None:
    good = "return np.full(len(table), 0.5)"
    if_asked = f"return {scores} if Path('asked').exists() else np.full(len(table), 0.5)"
    source = PROBE.replace(good, if_asked).replace(
        "import numpy as np\n", "import numpy as np\n    from pathlib import Path\n"
    )
    plugin("probe", source)
    assert fl("run", csv_file(model={"name": "probe"}), "--out", "out").code == 0
    (tmp_path / "asked").touch()
    refused(fl("predict", "out", "a.csv"), code, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--json"], "give a run FILE, or --resume RUN"),
        (["run", "run.yaml", "--json", "--sede", "1"], "--sede"),
        (["runs", "show", "--json"], "Missing argument 'RUN'"),
        (["rnu", "--json"], "No such command 'rnu'"),
    ],
)
def test_json_tells_a_wrong_call_to_programs(fl: Fl, arguments: list[str], said: str) -> None:
    outcome = fl(*arguments)
    assert outcome.code == 2
    event = json.loads(outcome.out)
    assert event["event"] == "error"
    assert (event["error"]["code"], event["error"]["title"]) == (2, "wrong call")
    assert said in event["error"]["message"]
    assert "--help" in event["error"]["remedy"]


def test_the_error_that_ends_a_run_names_the_run_and_its_folder(
    fl: Fl, spec_file: SpecFile, probe: Path
) -> None:
    path = spec_file(model={"name": "probe", "params": {"fault": "nan"}})
    outcome = fl("run", path, "--out", "out", "--json")
    assert outcome.code == 17
    last = json.loads(outcome.out.splitlines()[-1])
    run_id = json.loads(Path("out/manifest.json").read_text())["id"]
    assert (last["event"], last["run"], last["folder"]) == ("error", run_id, "out")
    assert last["error"]["code"] == 17
    again = fl("run", path, "--out", "out", "--json")
    assert again.code == 14
    assert json.loads(again.out).keys() == {"event", "error"}
    assert "report:" not in fl("run", path, "--out", "out").err


def in_terminal(columns: int, *arguments: str, **environment: str) -> str:
    """What ``fl`` shows in a terminal of so many columns."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fl_core.cli", *arguments],
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # how Linux tells that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() in (0, 14)
    return shown.decode().replace("\r\n", "\n")


def without_styles(shown: str) -> str:
    """The text without the terminal's escape sequences."""
    return re.sub(r"\x1b\[[0-9;]*m", "", shown)


@pytest.mark.parametrize("columns", [200, 80, 60, 50, 30])
def test_no_name_and_no_number_is_broken_in_a_narrow_terminal(
    fl: Fl, spec_file: SpecFile, columns: int
) -> None:
    assert fl("run", spec_file(name="narrow", rounds=1), "--out", "runs/x").code == 0
    shown = without_styles(in_terminal(columns, "runs", "show", "x"))
    lines = [line.rstrip() for line in shown.splitlines()]
    table = {line.split()[0]: line.split()[1:] for line in lines if line}
    figures = json.loads(fl("runs", "show", "x", "--json").out)["figures"]
    for silo in (*spec_silos(), "pooled"):
        auc = figures[silo]["Test:AUC"]
        assert ("undefined" if auc is None else f"{auc:.4f}") in table[silo]
    assert max(len(line) for line in lines if line.split()[:1] == ["va-long-beach"]) <= columns
    run_id = json.loads(Path("runs/x/manifest.json").read_text())["id"]
    if columns >= 50:
        assert run_id in in_terminal(columns, "runs", "list")


def spec_silos() -> list[str]:
    return ["cleveland", "hungary", "switzerland", "va-long-beach"]


def test_no_color_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m" in in_terminal(80, "runs", "show", "x")
    assert "\x1b[" not in in_terminal(80, "runs", "show", "x", NO_COLOR="1")


def test_plugins_tells_what_each_strategy_does(fl: Fl) -> None:
    outcome = fl("plugins")
    assert outcome.code == 0, outcome.err
    assert "strategy fedprox: fedavg, with each fit held near the global state" in outcome.out
    assert {plugin["name"] for plugin in json.loads(fl("plugins", "--json").out)} >= {"strategies"}
