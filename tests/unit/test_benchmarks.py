"""The benchmarks' tables say what their result files say, and what is required holds."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bench, comparison, environments, quality, search, stock, tiny_model
from benchmarks.processes import BenchmarkError, Process, Watch, run_fl, started
from benchmarks.systems import fl, flower, nvflare
from benchmarks.systems.contract import (
    HEAD,
    WORKS,
    Measured,
    Setting,
    Work,
    finish,
    initial,
    measured,
)
from fl_core.dataset import DatasetParams
from fl_core.job import Job
from fl_core.model import FitContext
from fl_core.preprocessing import Parts
from fl_core.state import encode


def _rows(auc: float = 0.9, accuracy: float = 0.8) -> list[quality.Row]:
    figures = {"Test:AUC": auc, "Test:Accuracy": accuracy, "Test:Loss": 0.5}
    rows = []
    for case in quality.CASES:
        for i, seed in enumerate(quality.SEEDS):
            row = dict.fromkeys(quality.columns(), "")
            row |= {"model": case.model, "strategy": case.strategy, "rounds": str(case.rounds)}
            row |= {name: f"{value + i / 1000:.6f}" for name, value in figures.items()}
            rows.append({**row, "seed": str(seed)})
    return rows


def test_readme_shows_the_results_and_they_are_good_enough():
    readme = quality.README.read_text(encoding="utf-8")
    assert quality.check(quality.read(), readme) == []


def test_table_gives_mean_and_range():
    first = quality.table(_rows()).splitlines()[2].strip("| ").split(" | ")
    assert first == [
        "MLP, fedavg, 20 rounds",
        ".902 (.900 to .904)",
        ".802 (.800 to .804)",
        ".502 (.500 to .504)",
    ]


def test_csv_round_trip(tmp_path):
    quality.write(_rows(), tmp_path / "results.csv")
    assert quality.read(tmp_path / "results.csv") == _rows()


def test_table_is_put_between_the_markers():
    text = f"before\n{quality.BEGIN}\nold\n{quality.END}\nafter\n"
    embedded = quality.embed(text, "new")
    assert embedded == f"before\n{quality.BEGIN}\nnew\n{quality.END}\nafter\n"
    assert quality.embed(embedded, "new") == embedded


@pytest.mark.parametrize("text", ["", quality.BEGIN, f"{quality.END}{quality.BEGIN}"])
def test_readme_without_markers_is_refused(text):
    with pytest.raises(BenchmarkError, match="has no line"):
        quality.embed(text, "new")


def test_missing_seed_is_refused():
    with pytest.raises(BenchmarkError, match="MLP, fedavg: seeds"):
        quality.table(_rows()[1:])


def test_each_shortfall_is_named():
    found = quality.shortfalls(_rows(auc=0.8, accuracy=0.7))
    assert len(found) == len(quality.REQUIREMENTS)
    assert found[0] == "MLP: mean Test:AUC is 0.8020, required is 0.87"


def test_outdated_readme_is_named():
    readme = f"{quality.BEGIN}\n{quality.END}\n"
    assert quality.check(_rows(), readme) == [
        "README.md does not show the csv: python -m benchmarks.quality --table"
    ]


def test_bench_table_is_made_from_its_json():
    figures = json.loads((bench.RESULTS / "bench.json").read_text(encoding="utf-8"))
    assert (bench.RESULTS / "bench.md").read_text(encoding="utf-8") == bench.table(figures)


def _bench_figures(seconds: float, overhead: float, share: float) -> dict[str, Any]:
    return {
        "demo_seconds": {name: [seconds] * 3 for name in ("mlp", "xgboost", "both")},
        "overhead_seconds": [overhead] * 5,
        "overhead_seconds_of_64": [6 * overhead] * 5,
        "waiting_cpu_share": {"aggregator": share / 2, "silo hungary": share},
    }


def _runs(*round_seconds: float, **figures: float | None) -> list[dict[str, Any]]:
    run = asdict(Measured([*round_seconds], 2 * 10**8)) | figures
    return [run, run]


def _systems(ours: float, floor: float, peak: int) -> dict[str, Any]:
    return {
        "sizes": ["tiny", "100"],
        "settings": {
            name: {"title": name.upper(), "tls": "none", "cannot": {}} for name in ("fl", "floor")
        },
        "runs": {
            "fl": {
                "tiny": _runs(0.01, 0.03, 0.02, start_seconds=2.0, cpu_seconds=5.5, silo_bytes=1),
                "100": _runs(ours, server_bytes=peak, silo_bytes=3 * 10**8),
            },
            "floor": {"tiny": _runs(0.005), "100": _runs(floor)},
        },
        "failed": {},
    }


def test_bench_names_each_shortfall():
    good = _bench_figures(15, 0.01, 0.019) | {"systems": _systems(1.5, 1.0, 900 * 10**6)}
    assert bench.shortfalls(good) == []
    bad = _bench_figures(31, 0.011, 0.02) | {"systems": _systems(1.6, 1.0, 901 * 10**6)}
    found = bench.shortfalls(bad)
    assert len(found) == len(bench.requirements(good)) == 7
    assert found[0] == (
        "`make demo` repeated: both jobs, 3 times: median 31.0 s, least 31.0 s, "
        "required is at most 30 s"
    )
    assert found[3].endswith("percentile 66.0 ms, required is median at most 60 ms")
    assert found[4] == (
        "CPU of each of 2 waiting processes: at most 2.0 % of a core (silo hungary), "
        "required is under 2 %"
    )
    assert found[5] == (
        "a round of 100 MB, 4 silos: 1.60 s, 1.60 times the raw floor's 1.00 s, "
        "required is at most 1.5 times"
    )
    assert found[6] == ("the aggregator's peak memory at it: 901 MB, required is at most 900 MB")


def test_bench_without_the_floor_asks_nothing_of_it():
    systems = _systems(9.0, 1.0, 10**10)
    del systems["runs"]["floor"], systems["settings"]["floor"]
    assert bench.requirements({"systems": systems}) == []


def test_bench_names_a_system_that_failed():
    systems = _systems(1.0, 1.0, 1)
    systems["failed"] = {"flower-simulation": "tiny x 4: no end after 600 s"}
    assert bench.shortfalls({"systems": systems}) == [
        "flower-simulation failed, tiny x 4: no end after 600 s"
    ]


@pytest.mark.parametrize("narrowed", [False, True])
def test_bench_writes_its_results_and_fails_on_a_shortfall(narrowed, tmp_path, monkeypatch, capsys):
    mlp = json.loads((bench.RESULTS / "bench.json").read_text(encoding="utf-8"))["mlp"]
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(bench, "PARTIAL", tmp_path / "partial")
    options = ["--systems", "fl,floor", "--sizes", "tiny,100"] if narrowed else []
    monkeypatch.setattr(sys, "argv", ["bench", *options])
    own = _bench_figures(5, 0.005, 0.001) | {"mlp": mlp}
    monkeypatch.setattr(bench, "measure", lambda *_: own)
    here, other = tmp_path / "results", tmp_path / "partial"
    if narrowed:
        here, other = other, here
    for ours, code in ((1.0, 0), (2.0, 1)):
        systems = _systems(ours, 1.0, 1)
        monkeypatch.setattr(comparison, "compare", lambda *_, s=systems: s)
        assert bench.main() == code
        written = json.loads((here / "bench.json").read_text())
        assert written["systems"] == systems
        assert ("mlp" in written) == (not narrowed)
        assert (here / "bench.md").read_text() == bench.table(written)
        assert not other.exists()
        assert ("at most 1.5 times" in capsys.readouterr().err) == bool(code)


@pytest.mark.parametrize("option", ["--systems", "--sizes"])
def test_bench_refuses_what_it_does_not_know(option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", option, "tiny,fl,other"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "is none of" in capsys.readouterr().err


def test_comparison_table_gives_medians_ratios_and_reasons():
    figures = _systems(1.5, 1.0, 9 * 10**8)
    other = {"title": "OTHER", "tls": "none", "cannot": {"100": "needs a terabyte"}}
    figures["settings"] |= {"other": other, "broken": other | {"title": "BROKEN"}}
    figures["runs"] |= {"other": {"tiny": _runs(2.0, 4.0)}, "broken": {}}
    figures["failed"] = {"broken": "why"}
    lines = comparison.table(figures).splitlines()
    assert lines[0] == "| seconds of a round, and times ours | TLS | tiny x 4 | 100 MB x 4 |"
    assert lines[2] == "| FL | none | 0.0200 (1.00) | 1.50 (1.00) |"
    assert lines[3] == "| FLOOR | none | 0.00500 (0.250) | 1.00 (0.667) |"
    assert lines[4] == "| OTHER | none | 3.00 (150) | needs a terabyte |"
    assert lines[5] == "| BROKEN | none | failed | failed |"
    assert lines[9] == "| FL | 2.00 s | 5.50 s, 4 rounds | 900 MB | 300 MB |"
    assert lines[10] == "| FLOOR |  |  | 200 MB |  |"


def _setting(name: str, done: list[str], **more: Any) -> Setting:
    def run(work: Work, rounds: int, folder: Path) -> Measured:
        assert not list(folder.iterdir())
        done.append(f"{name} {work.name} {rounds}")
        if "breaks" in name:
            raise BenchmarkError("it broke")
        return Measured([1.0], 1)

    return Setting(name, name, "none", run, **more)


def test_systems_take_turns_and_one_that_fails_stops_no_other(monkeypatch):
    done: list[str] = []
    systems = {
        "a": (_setting("a", done),),
        "b": (
            _setting("slow", done, once=True, most_rounds=3, cannot={"1": "why"}),
            _setting("breaks", done),
        ),
        "c": (_setting("c", done),),
    }
    monkeypatch.setattr(comparison, "SYSTEMS", systems)
    monkeypatch.setattr(comparison, "LOCKED", {})
    found = comparison.compare(["a", "b"], ["1", "tiny"], 2)
    assert done == [
        *("a tiny 50", "slow tiny 3", "breaks tiny 50", "a 1 30"),
        *("a tiny 50", "a 1 30"),
    ]
    assert found["failed"] == {"breaks": "tiny x 4: it broke"}
    assert [len(found["runs"]["a"][size]) for size in ("tiny", "1")] == [2, 2]
    assert comparison.table(found)


def test_settings_have_names_of_their_own_and_do_what_they_can():
    settings = [setting for some in comparison.SYSTEMS.values() for setting in some]
    assert len({setting.name for setting in settings}) == len(settings)
    works = {work.name for work in WORKS}
    for setting in settings:
        assert set(setting.cannot) < works
        assert all(1 < setting.rounds(work) <= work.rounds for work in WORKS)


class Peaks:
    """What is asked of a Watch after a run."""

    def __init__(self, peaks: dict[str, int]) -> None:
        self._peaks = peaks

    def peaks(self) -> dict[str, int]:
        return self._peaks

    def processes(self) -> list[Process]:
        return [Process("server", cpu=[(0.0, 1.5)]), Process("silo 1", cpu=[(0.0, 2.0)])]


def _measured(times: list[float], off: float = 0.0, **peaks: int) -> Measured:
    work = Work("small", 20, 4, 3)
    head = initial(work)[:HEAD] + 3 * (1 + 2 + 3 + 4) / 4 / 4 + off
    named = {name.replace("_", " "): peak for name, peak in peaks.items()}
    return measured(work, 3, 100.0, times, head.tolist(), Peaks(named))


def test_a_run_is_measured():
    found = _measured([102.0, 103.0, 105.0], server=7, silo_1=4, silo_2=6)
    assert (found.start_seconds, found.round_seconds) == (2.0, [1.0, 2.0])
    assert (found.server_bytes, found.silo_bytes, found.cpu_seconds) == (7, 6, 3.5)


@pytest.mark.parametrize(
    ("times", "off", "peaks", "why"),
    [
        ([102.0, 103.0], 0.0, {"server": 1, "silo_1": 1}, "2 rounds instead of 3"),
        ([102.0, 103.0, 104.0], 0.1, {"server": 1, "silo_1": 1}, "the last state starts"),
        ([102.0, 103.0, 104.0], 0.0, {"server": 1}, "no server or no silo"),
        ([102.0, 103.0, 104.0], 0.0, {"silo_1": 1}, "no server or no silo"),
    ],
)
def test_other_work_than_what_was_asked_is_refused(times, off, peaks, why):
    with pytest.raises(BenchmarkError, match=why):
        _measured(times, off, **peaks)


def test_a_watch_sees_orphans_names_them_and_ends_them(tmp_path):
    orphan = "import time; block = bytearray(40_000_000); time.sleep(60)"
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}])"
    with started([sys.executable, "-c", script], tmp_path / "log") as process:
        watch = Watch({process.pid: "root"}, lambda title: "orphan" if "block" in title else None)
        try:
            deadline = time.monotonic() + 30
            while watch.peaks().get("orphan", 0) < 40_000_000:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            watch.end_all()
    pids = [key[0] for key, seen in watch._seen.items() if seen.name == "orphan"]
    assert pids
    for pid in pids:
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_first_process_to_fail_ends_the_waiting(tmp_path):
    with ExitStack() as stack:
        logs = [tmp_path / "good.log", tmp_path / "bad.log"]
        scripts = ["import time; time.sleep(60)", "raise SystemExit('no luck')"]
        processes = [
            stack.enter_context(started([sys.executable, "-c", script], log))
            for script, log in zip(scripts, logs, strict=True)
        ]
        with pytest.raises(BenchmarkError, match="bad ended 1:\nno luck"):
            finish(processes, logs)


def test_this_project_does_the_work(tmp_path):
    found = fl.run(Work("small", 50, 3, 3), 100, tmp_path)  # long enough to be looked at
    assert len(found.round_seconds) == 99
    assert found.silo_bytes
    assert found.start_seconds
    assert found.cpu_seconds


def test_the_model_of_the_comparison_adds_a_silos_constant():
    params = tiny_model.ConstantParams(values=5, silos=4)
    model = tiny_model.Constant(params, tiny_model.Rows(DatasetParams(), Path()).schema())
    state = model.initial_state(1)
    table = tiny_model.Rows(DatasetParams(), Path()).load("silo-3", None)
    update = model.fit(state, table, FitContext(1, "silo-3", 7))
    assert update.state["weights"] == pytest.approx(state["weights"] + 0.75)
    assert np.array_equal(state["weights"], initial(Work("small", 5, 4, 1)))
    assert model.predict(state, table).shape == (len(table),)


def test_every_combination_of_the_grids_was_searched():
    rows = search.read()
    assert tuple(rows[0]) == search.COLUMNS
    for grid in search.GRIDS:
        job = search.load(grid.file, {})
        mine = [row for row in rows if row["model"] == job.spec.model.name]
        searched = [json.loads(row["params"]) for row in mine]
        assert len(searched) == len(grid.combinations())
        assert all(params in searched for params in grid.combinations())
        assert {row["rounds"] for row in mine} == {str(job.spec.rounds)}


def test_the_examples_have_the_best_of_the_grids():
    assert search.differences(search.read()) == []


def test_an_example_that_has_not_the_best_is_named():
    rows = search.read()
    best = next(row for row in rows if row["model"] == "mlp")
    rest = [row for row in rows if row is not best]
    (wrong,) = search.differences(rest)
    assert wrong.startswith("heart-disease-mlp.yaml does not have the best of the grid")
    with pytest.raises(BenchmarkError, match=r"no row for heart-disease-mlp\.yaml"):
        search.differences([row for row in rows if row["model"] != "mlp"])


@pytest.mark.parametrize("grid", search.GRIDS, ids=lambda grid: grid.file.stem)
def test_the_search_trains_what_a_run_trains(grid, tmp_path):
    params = dict(grid.combinations()[0])
    job = search.load(grid.file, params)
    job = replace(job, spec=job.spec.model_copy(update={"rounds": 2}))
    silos = search.silos(job)
    state = search.train(job, silos, 43)
    settings = [f"--set=model.params.{name}={json.dumps(value)}" for name, value in params.items()]
    command = [str(grid.file), "--seed=43", "--set=rounds=2", *settings]
    run = run_fl(command, tmp_path / "run")
    assert (run.folder / "model.safetensors").read_bytes() == encode(state)
    figures = {row["name"]: row["value"] for row in run.metrics() if row["role"] == "aggregator"}
    assert search.validate(job, silos, state)[0] == figures["Validation:AUC"]


def test_searching_never_looks_at_test_rows(monkeypatch):
    class Untouchable:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"the test rows' {name} were asked for")

    def load(job: Job, silo: str) -> Parts:
        return replace(loaded(job, silo), test=Untouchable())

    loaded = Job.load
    monkeypatch.setattr(Job, "load", load)
    grid = replace(search.GRIDS[1], values={"depth": (2,), "eta": (0.1,), "subsample": (1,)})
    (row,) = search.measure(grid, seeds=(1,))
    assert row["model"] == "xgboost"
    assert row["least Validation:Loss"] == row["largest Validation:Loss"]


@pytest.mark.parametrize("system", [stock, flower, nvflare])
def test_a_lock_is_read_whole(system):
    locked = system.REQUIREMENTS.read_text(encoding="utf-8")
    assert "".join(environments.pins(locked)) == locked
    assert environments.pinned(locked, "numpy")
    assert environments.pinned(locked, "nump") is None


def test_an_environment_is_made_once_for_a_lock(tmp_path, monkeypatch):
    called: list[str] = []
    monkeypatch.setattr(environments, "BUILD", tmp_path)

    def uv(*arguments: str) -> None:
        called.append(arguments[0])
        (tmp_path / "bench-x").mkdir(exist_ok=True)

    monkeypatch.setattr(environments, "_uv", uv)
    lock = tmp_path / "requirements.txt"
    for text, calls in (("a==1\n", 2), ("a==1\n", 2), ("a==2\n", 4)):
        lock.write_text(text)
        python = environments.environment("x", lock)
        assert python == tmp_path / "bench-x" / "bin" / "python"
        assert len(called) == calls
