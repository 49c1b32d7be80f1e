"""``fl chaos``: what it prints, what it ends with, what it takes for a promise that was kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from fl_core import local, runs
from fl_core.chaos import run as chaotic
from fl_core.chaos import schedule as schedules
from fl_core.chaos.recompute import counted
from fl_core.chaos.schedule import AGGREGATOR, Fault
from fl_core.cli import chaos as command
from fl_core.errors import FlError, Interrupted, RoleError, RunFolderError, SpecError
from fl_core.spec import RunSpec

SILOS = ["cleveland", "hungary", "switzerland"]
BASE: dict[str, Any] = {
    "name": "small",
    "dataset": {"name": "heart-disease"},
    "silos": SILOS,
    "model": {"name": "mlp", "params": {"layers": [4]}},
    "strategy": {"name": "fedavg"},
    "rounds": 2,
}
BELOW = RoleError("1 of 2 updates that the quorum needs in round 1: silo 'hungary' ...")


def spec(**changes: Any) -> RunSpec:
    return RunSpec.model_validate(BASE | changes)


@pytest.fixture
def fl_chaos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``fl chaos`` without processes: the run ends as the test says."""
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(yaml.safe_dump(BASE))
    monkeypatch.setattr(local, "warm_up", lambda preload: None)

    def call(ending: chaotic.Ending, *arguments: str) -> Result:
        def play(*given: Any) -> chaotic.Ending:
            told = {"who": "hungary", "what": "kill", "at": 1.5}
            given[-1]({"role": "chaos", "event": "fault", "fault": told})
            return ending

        monkeypatch.setattr(chaotic, "run", play)
        return CliRunner().invoke(command.chaos, ["run.yaml", *arguments])

    return call


def test_the_schedule_that_is_printed_can_be_played_again(
    fl_chaos: Callable[..., Result], tmp_path: Path
) -> None:
    done = chaotic.Ending(chaotic.COMPLETED, "", True)
    first = fl_chaos(done, "--seed", "4", "--json")
    assert first.exit_code == 0, first.output
    events = [json.loads(line) for line in first.output.splitlines()]
    assert [event["event"] for event in events] == ["schedule", "fault", "ending"]
    (tmp_path / "faults.yaml").write_text(events[0]["yaml"])
    assert schedules.load(tmp_path / "faults.yaml").faults
    again = fl_chaos(done, "--faults", "faults.yaml", "--json")
    assert json.loads(again.output.splitlines()[0])["yaml"] == events[0]["yaml"]
    assert events[2]["promised"] is True


@pytest.mark.parametrize(
    ("ending", "kept"),
    [
        (chaotic.Ending(chaotic.COMPLETED, "", True), True),
        (chaotic.Ending(chaotic.COMPLETED, "the model keeps something", None), True),
        (chaotic.Ending(chaotic.COMPLETED, "another model", False), False),
        (chaotic.Ending(chaotic.BELOW, "too few"), True),
        (chaotic.Ending(chaotic.WAITING, "too few"), True),
        (chaotic.Ending(chaotic.CUT_OFF, "for good"), True),
        (chaotic.Ending(chaotic.BROKEN, "it hangs"), False),
    ],
)
def test_it_ends_with_0_if_the_promise_was_kept(
    fl_chaos: Callable[..., Result], ending: chaotic.Ending, kept: bool
) -> None:
    outcome = fl_chaos(ending)
    assert "fault: kill hungary (at 1.5)" in outcome.output
    assert ending.end in outcome.output
    assert ending.reason in outcome.output
    assert ("promise kept" in outcome.output) == kept
    assert (outcome.exit_code == 0) == kept
    assert kept or isinstance(outcome.exception, FlError)


def test_a_schedule_of_another_run_is_refused(
    fl_chaos: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "faults.yaml").write_text("faults: [{who: hungry, what: kill}]")
    outcome = fl_chaos(chaotic.Ending(chaotic.BROKEN), "--faults", "faults.yaml")
    assert isinstance(outcome.exception, SpecError)
    assert "hungry" in outcome.exception.message
    assert "did you mean 'hungary'" in outcome.exception.remedy


@given(seed=st.integers(0, 10_000))
def test_a_seed_draws_the_same_faults_of_this_run(seed: int) -> None:
    drawn = chaotic.drawn(seed, spec())
    assert drawn == chaotic.drawn(seed, spec())
    chaotic.check(drawn, spec())
    assert all(fault.back is not None for fault in drawn.faults if fault.who == AGGREGATOR)


def test_neither_a_run_nor_a_role_imports_chaos() -> None:
    code = (
        "import sys, fl_core.local, fl_core.fork_server, fl_core.service.agent\n"
        # Flushed: fork_server has its process end without the interpreter's own goodbye.
        "print([n for n in sys.modules if n.startswith('fl_core.chaos')], flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What a run came to


DEFAULTS = {"waited": False, "silent": False, "came": set(SILOS)}


def playing(*hit: Fault, **seen: Any) -> Any:
    return SimpleNamespace(hit=list(hit), **DEFAULTS | seen)


TWO = {"quorum": {"min_silos": 2}}
KILLED = [Fault("hungary", "kill"), Fault("switzerland", "kill", back=1.0)]


@pytest.mark.parametrize(
    ("error", "seen", "changes", "end"),
    [
        (BELOW, playing(*KILLED), TWO, chaotic.BELOW),
        (BELOW, playing(KILLED[0]), TWO, chaotic.BROKEN),
        (BELOW, playing(KILLED[0]), {}, chaotic.BELOW),
        (BELOW, playing(Fault(AGGREGATOR, "kill", back=1.0)), TWO, chaotic.BELOW),
        (BELOW, playing(), {}, chaotic.BROKEN),
        (BELOW, playing(came={"cleveland"}), TWO, chaotic.BELOW),
        (Interrupted(""), playing(KILLED[0], waited=True), {}, chaotic.WAITING),
        (Interrupted(""), playing(KILLED[1], waited=True), {}, chaotic.BROKEN),
        (Interrupted(""), playing(KILLED[0], silent=True), {}, chaotic.BROKEN),
        (RoleError(""), playing(Fault(AGGREGATOR, "kill")), {}, chaotic.CUT_OFF),
        (RoleError("raised"), playing(KILLED[0]), {}, chaotic.BROKEN),
    ],
)
def test_an_end_without_a_model_is_promised_if_faults_are_behind_it(
    error: FlError, seen: Any, changes: dict[str, Any], end: str
) -> None:
    assert chaotic._ended(error, seen, spec(**changes)).end == end


@pytest.mark.parametrize(("error", "hit"), [(Interrupted("Ctrl-C"), KILLED), (RoleError("x"), [])])
def test_what_no_fault_is_behind_is_an_error_of_its_own(error: FlError, hit: list[Fault]) -> None:
    with pytest.raises(type(error)):
        chaotic._ended(error, playing(*hit), spec())


@pytest.mark.parametrize(
    ("rounds", "wrong"),
    [
        ({1: [("a", 1)], 2: [("a", 2), ("b", 1)]}, ""),
        ({1: [("a", 1)], 2: [("a", 2), ("a", 1)]}, "counts twice"),
        ({1: [("a", 1)], 4: [("a", 4)]}, "have been aggregated"),
        ({1: [("a", 1)], 2: [("a", 2)], 3: [("a", 3), ("b", 1)]}, "counts in round 3"),
        ({1: [("b", 1)], 2: [("a", 1)]}, "0 updates"),
    ],
)
def test_what_counted_must_make_sense(rounds: Any, wrong: str) -> None:
    found = chaotic._miscounted(rounds, spec(late_updates={"most": 1}))
    assert wrong in found
    assert bool(found) == bool(wrong)


def test_of_a_round_that_was_begun_anew_the_last_counts(tmp_path: Path) -> None:
    lines = [(1, "a"), (2, "a"), (2, "b"), (3, "c")]
    text = "".join(
        json.dumps({"round": round, "updates": [{"silo": silo, "round": round}]}) + "\n"
        for round, silo in lines
    )
    (tmp_path / runs.ROUNDS_FILE).write_text(text)
    run = runs.Run(tmp_path, {})
    assert counted(run) == {1: [("a", 1)], 2: [("b", 2)], 3: [("c", 3)]}
    (tmp_path / runs.ROUNDS_FILE).write_text(text + "{")
    with pytest.raises(RunFolderError, match="cannot be read"):
        counted(run)
