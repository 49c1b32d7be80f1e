"""`fl experiments`: what it says of runs that our tracker and SageMaker's own SDK have written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fl_core.cli.experiments import _compared
from fl_core.metrics import Value
from fl_core.tracking.contract import Outcome, Part, Point, Status
from fl_core.tracking.experiments import party
from fl_core.tracking.experiments_reader import READER_ACTIONS, Run
from fl_core.tracking.sagemaker import SageMaker, SageMakerParams
from tests.tracking.aws.fixture import KEY, ExperimentsService
from tests.tracking.sdk import PYTHON, Ask, ready

ROOT = Path(__file__).parents[2]
FIRST, SECOND = "demo-20261122-101112-0123abcd", "demo-20261123-101112-89abcdef"
LONG = "heart-disease-mlp-20261123-091500-1a2b3c4d"
STARTED = 1_795_342_272.0  # 2026-11-22 10:11:12 UTC
AGGREGATOR, NORTH, SOUTH = "fl-aggregator", "fl-client-north", "fl-client-south"

Answer = Mapping[str, Any]
Fl = Callable[..., Answer]
Write = Callable[..., None]


@pytest.fixture
def ask(sdk_process: Ask, experiments_service: ExperimentsService, tmp_path: Path) -> Ask:
    """Asks `fl` where the SDK is for something: the answer."""

    def ask(environment: Mapping[str, str] | None = None, **what: Any) -> Answer:
        given = {**experiments_service.environment, "HOME": str(tmp_path)}
        return sdk_process({**given, **(environment or {})}, **what)

    return ask


@pytest.fixture
def fl(ask: Callable[..., Answer]) -> Fl:
    """Runs `fl experiments` with these arguments."""

    def fl(*arguments: str | Path, **environment: str) -> Answer:
        return ask(environment, arguments=["experiments", *map(str, arguments)])

    return fl


def said(answer: Answer) -> Any:
    """What --json has printed; nothing else may be there."""
    assert (answer["code"], answer["err"]) == (0, ""), answer
    return json.loads(answer["out"])


def refused(answer: Answer) -> tuple[str, str]:
    """The error's message and remedy, of a --json call."""
    assert (answer["code"], answer["err"]) == (21, ""), answer
    error = json.loads(answer["out"])["error"]
    return error["message"], error["remedy"]


@pytest.fixture
def write(experiments_service: ExperimentsService) -> Write:
    """Writes a run as our tracker does."""
    trackers: dict[str, SageMaker] = {}

    def write(
        silo: str | None,
        run: str = FIRST,
        figures: Mapping[str, Sequence[float]] | None = None,
        status: Status = Status.COMPLETED,
        message: str = "",
        prefix: str = "fl",
        **parameters: Any,
    ) -> None:
        if prefix not in trackers:  # its clients take long to make
            trackers[prefix] = SageMaker(SageMakerParams(prefix=prefix))
        tracker = trackers[prefix]
        start = {key: value for key, value in parameters.items() if not key.endswith("undefined")}
        handle = tracker.start(Part(run, silo, "5" * 64, STARTED, start))
        points = [
            Point(STARTED + round, round, name, value)
            for name, values in (figures or {}).items()
            for round, value in enumerate(values, 1)
        ]
        for first in range(0, len(points), tracker.batch_points):
            tracker.log(handle, points[first : first + tracker.batch_points], False)
        artifacts = {"summary.json": "s3://artifacts/runs/x/summary.json"}
        tracker.end(handle, Outcome(status, message, STARTED + 200), parameters, artifacts)

    return write


def rising(rounds: int, last: float) -> list[float]:
    return [last * round / rounds for round in range(1, rounds + 1)]


# --- what is there ---


def test_lists_the_experiments_of_a_prefix(fl: Fl, write: Write, ask: Any):
    write(None)
    write(None, SECOND, status=Status.FAILED, message="silo north was lost")
    write("north")
    write("east", prefix="other")
    written = ask(run={"experiment": "fl-by-others", "run": "first", "fail": False})
    assert written["code"] == 0, written

    found = {one["experiment"]: one for one in said(fl("list", "--json"))}
    assert [*found] == [AGGREGATOR, "fl-by-others", NORTH]
    assert found[AGGREGATOR] == {
        "experiment": AGGREGATOR,
        "kind": "aggregator",
        "silo": None,
        "runs": 2,
        "last_run": {"run": SECOND, "status": "failed", "started": "2026-11-22T10:11:12+00:00"},
    }
    assert (found[NORTH]["kind"], found[NORTH]["silo"]) == ("silo", "north")
    other = found["fl-by-others"]
    assert (other["kind"], other["runs"], other["last_run"]["run"]) == (None, 1, "first")

    assert len(said(fl("list", "--prefix", "", "--json"))) == 4
    assert said(fl("list", "--prefix", "none", "--json")) == []
    assert fl("list", "--prefix", "none")["out"] == "no experiments whose names begin with none-\n"
    lines = fl("list")["out"].splitlines()
    assert lines[0].split("  ")[0] == "experiment"
    assert re.split(r"  +", lines[1])[:4] == [AGGREGATOR, "aggregator", SECOND, "failed"]


def test_shows_the_runs_of_an_experiment(fl: Fl, write: Write):
    write("north", figures={"Test:AUC": [0.5, 0.75], "Training:Loss": [0.9, 0.4]})
    write("north", SECOND, **{"Test:AUC undefined": "one class only"})
    runs = said(fl("show", NORTH, "--json"))["runs"]
    assert [run["run"] for run in runs] == [FIRST, SECOND]
    assert runs[0]["last"] == {"Test:AUC": 0.75, "Training:Loss": 0.4}
    assert (runs[0]["status"], runs[0]["seconds"]) == ("completed", 200.0)
    assert runs[1]["undefined"] == {"Test:AUC": "one class only"}
    head, first, second = (re.split(r"  +", one) for one in fl("show", NORTH)["out"].splitlines())
    assert head == ["run", "status", "started", "seconds", "Test AUC", "Training Loss"]
    assert first == [FIRST, "completed", "2026-11-22T10:11Z", "200.0", "0.7500", "0.4000"]
    assert second[4].strip() == "undefined"


def test_shows_a_run(fl: Fl, write: Write):
    write(
        "north",
        figures={"Test:AUC": rising(20, 0.8), "Training:Loss": rising(20, 0.1)},
        status=Status.FAILED,
        message="silo north: out of memory",
        center="north",
        seed=7,
        model="mlp",
        **{"learning-rate": 0.05, "Validation:AUC undefined": "no rows (up to round 20)"},
    )
    shown = said(fl("show", NORTH, FIRST, "--json"))
    assert shown["message"] == "silo north: out of memory"
    expected = {"center": "north", "seed": 7, "model": "mlp", "learning-rate": 0.05}
    assert shown["parameters"] == expected
    assert isinstance(shown["parameters"]["seed"], int)
    assert [point["round"] for point in shown["metrics"]["Test:AUC"]] == [*range(1, 21)]
    assert shown["metrics"]["Test:AUC"][-1]["value"] == pytest.approx(0.8)
    assert shown["metrics"]["Validation:AUC"] == [{"round": 20, "value": None, "reason": "no rows"}]
    assert shown["artifacts"] == {"summary.json": "s3://artifacts/runs/x/summary.json"}

    by_component = said(fl("show", NORTH, f"{NORTH}-{FIRST}", "--json"))
    assert by_component == shown
    text = fl("show", NORTH, FIRST)["out"]
    for part in (
        f"{FIRST}: failed\nexperiment {NORTH} (silo north)\n",
        "started 2026-11-22T10:11Z, took 3 min 20 s\n",
        "message: silo north: out of memory\n",
        "the last 10 of 20 rounds; --json has all",
        "Validation:AUC undefined: no rows (up to round 20)",
        "learning-rate  0.05",
        "s3://artifacts/runs/x/summary.json",
    ):
        assert part in text


def test_shows_a_run_that_the_sdk_wrote(fl: Fl, ask: Any):
    written = ask(run={"experiment": "by-others", "run": "Run-One", "fail": True})
    assert "diverged" in written["err"]
    shown = said(fl("show", "by-others", "run-one", "--json"))
    assert (shown["status"], shown["message"], shown["kind"]) == ("failed", "diverged", None)
    assert shown["parameters"] == {"Tiefe (m)": 3, "notes": "a b", "seconds.total": 1.5}
    assert [point["round"] for point in shown["metrics"]["val_loss"]] == [0, 1, 2]
    assert "gpu" not in shown["metrics"]
    assert shown["last"]["gpu"] == 10.0
    assert (
        "gpu: 10.0000 at last; 1 value, logged without rounds\n"
        in (fl("show", "by-others", "run-one")["out"])
    )
    ask(run={"experiment": "by-others", "run": "two", "fail": False})
    compared = said(fl("compare", "run-one", "two", "--experiment", "by-others", "--json"))
    assert [run["status"] for run in compared["runs"]] == ["failed", "completed"]
    last = {one["name"]: one["runs"][1]["last"] for one in compared["figures"]}
    assert last["gpu"] == {"round": 1, "value": 10.0, "leads": False}
    assert last["val_loss"]["round"] == 2


def test_more_runs_than_a_page(fl: Fl, write: Write, experiments_service: ExperimentsService):
    import boto3

    write("north")
    client = boto3.client("sagemaker")
    for number in range(103):
        name = f"{NORTH}-{number}"
        client.create_trial_component(TrialComponentName=name)
        client.associate_trial_component(
            TrialComponentName=name, TrialName=f"Default-Run-Group-{NORTH}"
        )
    client.close()
    assert said(fl("list", "--json"))[0]["runs"] == 104
    runs = said(fl("show", NORTH, "--json"))["runs"]
    assert [run["run"] for run in runs] == [FIRST, *map(str, range(103))]
    assert (runs[1]["status"], runs[1]["started"]) == ("", None)
    assert "no figures" in fl("show", NORTH, "102")["out"]


# --- comparing ---


def test_compares_runs(fl: Fl, write: Write, tmp_path: Path):
    for run, rate, auc in ((FIRST, 0.1, 0.7), (SECOND, 0.01, 0.8)):
        both = {"learning-rate": rate, "model": "mlp"}
        write(None, run, {"Test:AUC": rising(3, auc)}, **both)
        for silo in ("north", "south"):
            size = {"Train Data Size": 200 if silo == "north" else 100}
            write(silo, run, {"Test:AUC": rising(3, auc - 0.1)}, center=silo, **both, **size)
    page = tmp_path / "compared.html"
    compared = said(fl("compare", FIRST, SECOND, "--json", "--out", page))
    assert compared["page"] == str(page)
    assert compared["differing"] == [{"name": "learning-rate", "values": [0.1, 0.01]}]
    assert compared["runs"][0]["parameters"]["Train Data Size.north"] == 200
    last = {
        one["silo"]: [run["last"]["value"] for run in one["runs"]] for one in compared["figures"]
    }
    assert last == {
        None: pytest.approx([0.7, 0.8]),
        "north": pytest.approx([0.6, 0.7]),
        "south": last["north"],
    }
    for text in (FIRST, SECOND, "north", "learning-rate"):
        assert text in page.read_text()
    table = fl("compare", FIRST, SECOND)["out"]
    assert re.search(r"Test:AUC, last +0\.7000 +\*0\.8000", table)


def test_a_silos_account_has_its_own_part(fl: Fl, write: Write):
    for run in (FIRST, SECOND):
        write("north", run, {"Test:AUC": [0.5]}, center="north")
    compared = said(fl("compare", FIRST, SECOND, "--json"))
    assert [one["silo"] for one in compared["figures"]] == ["north"]
    assert "figures of north" in fl("compare", FIRST, SECOND)["out"]


def test_what_cannot_be_compared(fl: Fl, write: Write):
    write("north")
    assert fl("compare", FIRST)["code"] == 2
    assert fl("compare", FIRST, FIRST)["code"] == 2
    message, remedy = refused(fl("compare", FIRST, SECOND, "--json"))
    assert message.startswith(f"no run '{SECOND}' in the 1 experiments of 'fl'")
    assert "--prefix" in remedy


def part(experiment: str, status: str, **parameters: Any) -> Run:
    component = f"{experiment}-x"
    return Run("x", status, None, experiment, component, "arn", "", None, parameters, {}, {}, {})


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("completed", "failed", "completed"), "completed"),
        ((None, "completed", "running"), "running"),
        ((None, "failed", "running"), "failed"),
        ((None, "completed", "completed"), "completed"),
    ],
)
def test_the_status_of_the_whole(statuses: Sequence[str | None], expected: str):
    named = zip((AGGREGATOR, NORTH, SOUTH), statuses, strict=True)
    parts = [(part(name, status), {}) for name, status in named if status is not None]
    assert _compared("x", parts).status == expected


def test_parameters_of_the_parts_are_told_apart():
    parts = [
        (part(AGGREGATOR, "completed", seed=1, device="cpu"), {"Test:AUC": {1: Value(0.5)}}),
        (part(NORTH, "completed", seed=1, device="cuda", center="north"), {}),
    ]
    found = _compared("x", parts)
    assert found.parameters == {"seed": 1, "device": "cpu", "device.north": "cuda"}
    assert found.figures == {(None, "Test:AUC"): {1: Value(0.5)}}


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ("fl-aggregator", ("aggregator", None)),
        ("a-b-client-north-1", ("silo", "north-1")),
        ("mine", (None, None)),
    ],
)
def test_whose_an_experiment_is(experiment: str, expected: object):
    assert party(experiment) == expected


# --- what is asked of AWS, and what it says ---


def test_needs_these_rights_and_no_more(
    fl: Fl, write: Write, experiments_service: ExperimentsService
):
    for run in (FIRST, SECOND):
        write("north", run, {"Test:AUC": [0.5]})
    experiments_service.reset()
    allowed = [{"Action": [*READER_ACTIONS], "Resource": "*"}]
    experiments_service.policy({KEY: allowed})
    for arguments in (
        ["list"],
        ["show", NORTH],
        ["show", NORTH, FIRST],
        ["compare", FIRST, SECOND],
    ):
        said(fl(*arguments, "--json"))
    calls = experiments_service.calls()
    assert {action for call in calls for action in call["actions"]} == {*READER_ACTIONS}
    assert {call["status"] for call in calls} == {200}


def test_denied(fl: Fl, write: Write, experiments_service: ExperimentsService):
    write("north", figures={"Test:AUC": [0.5]})
    for action in READER_ACTIONS:
        others = [one for one in READER_ACTIONS if one != action]
        experiments_service.policy({KEY: [{"Action": others, "Resource": "*"}]})
        arguments = ["list"] if "List" in action else ["show", NORTH, FIRST]
        message, remedy = refused(fl(*arguments, "--json"))
        assert message.startswith(f"{action} on ")
        assert "denied" in message
        assert action in remedy


def test_misspelt(fl: Fl, write: Write, experiments_service: ExperimentsService):
    write("north")
    before = experiments_service.components()
    message, remedy = refused(fl("show", "fl-client-nort", "--json"))
    assert message == "this account has no experiment 'fl-client-nort' in eu-central-1"
    assert remedy == f"did you mean '{NORTH}'? `fl experiments list` says what is there"
    message, remedy = refused(fl("show", NORTH, FIRST[:-1], "--json"))
    assert message == f"experiment {NORTH} has no run '{FIRST[:-1]}'"
    assert remedy.startswith(f"did you mean '{FIRST}'?")
    message, remedy = refused(fl("show", "fl-client-nort", FIRST, "--json"))
    assert message.startswith("this account has no experiment 'fl-client-nort'")
    for run in ("", "typo_", "x" * 200):
        message, _ = refused(fl("show", NORTH, run, "--json"))
        assert message.startswith(f"experiment {NORTH} has no run ")
    message, remedy = refused(fl("list", "--region", "eu-centrl-1", "--json"))
    assert message == "SageMaker has no region 'eu-centrl-1'"
    assert remedy.startswith("did you mean 'eu-central-1'?")
    refused(fl("compare", FIRST, "typo", "--json"))
    assert experiments_service.components() == before  # the SDK's load_run would create them


def test_no_credentials_and_no_region(fl: Fl):
    message, remedy = refused(fl("list", "--json", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""))
    assert "no credentials" in message
    assert "AWS_PROFILE" in remedy
    message, remedy = refused(fl("list", "--json", AWS_DEFAULT_REGION="", AWS_REGION=""))
    assert message == "no AWS region is set"
    assert "--region" in remedy


def test_throttled_for_a_moment_goes_unnoticed(
    fl: Fl, write: Write, experiments_service: ExperimentsService
):
    write("north")
    experiments_service.fault("throttle", operation="ListExperiments", times=1)
    assert len(said(fl("list", "--json"))) == 1
    experiments_service.fault("throttle")
    message, remedy = refused(fl("list", "--json"))
    assert "AWS is busy" in message
    assert remedy == "try again in a minute"


def test_a_service_that_hangs_ends_the_command(
    fl: Fl, write: Write, experiments_service: ExperimentsService
):
    write("north")
    experiments_service.fault("hang", operation="ListTrialComponents")
    begun = time.monotonic()
    message, remedy = refused(fl("list", "--json"))
    assert time.monotonic() - begun < 25  # and the SDK's import, which this does not measure
    assert "does not answer" in message
    assert "AWS_ENDPOINT_URL" in remedy
    experiments_service.release()


# --- what a program and a terminal get ---


def test_nothing_of_the_sdk_shows(
    experiments_service: ExperimentsService, write: Write, tmp_path: Path
):
    ready()
    write("north", figures={"Test:AUC": [0.5]})
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    settings = tmp_path / "own.yaml"
    settings.write_text("no: settings of the SDK's")
    done = subprocess.run(
        [PYTHON, "-m", "fl_core.cli", "experiments", "show", NORTH, FIRST, "--json"],
        env={
            **experiments_service.environment,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(tmp_path),
            "TMPDIR": str(temporary),
            "SAGEMAKER_ENABLE_RICH_LOGGING": "1",
            "SAGEMAKER_USER_CONFIG_OVERRIDE": str(settings),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["run"] == FIRST
    assert not [*temporary.iterdir()]


def test_fits_a_terminal(fl: Fl, write: Write):
    figures = {
        name: rising(12, 0.5)
        for name in ("Test:AUC", "Test:Accuracy", "Test:Loss", "Validation:AUC", "Training:Loss")
    }
    write("north", LONG, figures, notes="word " * 40)
    terminal = {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "xterm-256color"}
    for arguments in (["list"], ["show", NORTH], ["show", NORTH, LONG]):
        text = re.sub(r"\x1b\[[\d;]*m", "", fl(*arguments, **terminal)["out"])
        lines = text.partition("artifacts:")[0].splitlines()
        assert max(len(line) for line in lines) <= 80
        assert "\N{HORIZONTAL ELLIPSIS}" not in text
        assert "completed" in text
        assert "s3://" not in text or "s3://artifacts/runs/x/summary.json" in text


def test_what_others_wrote_does_nothing_to_a_terminal(fl: Fl, write: Write):
    write("north", status=Status.FAILED, message="[red]\x1b[2J", note="\x1b]0;x\x07[bold]")
    text = fl("show", NORTH, FIRST)["out"]
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]" in text
    assert "[bold]" in text


def test_without_the_sdk(tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if "AWS" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "fl_core.cli", "experiments", "list"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 21
    assert "sagemaker-core" in done.stderr
    assert "what to do: pip install 'fl-core[sagemaker]'" in done.stderr
