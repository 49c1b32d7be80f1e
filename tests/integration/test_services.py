"""Coordinator and agents: what an operator and the silos see of them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fl_core.errors import TransportError
from fl_core.service.operator import Operator
from fl_core.transport.authority import Authority
from tests.integration.conftest import ROOT, Fl, children_of
from tests.integration.services import (
    FEDERATION,
    HOSPITALS,
    TWO,
    Services,
    probe,
    services,
    sha256,
    wait_for,
    write,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("federation")) as found:
        yield found.with_probe()


@pytest.fixture
def federation(shared: Services) -> Services:
    """A federation whose coordinator and two agents run; tests share it."""
    return shared.up(*TWO)


def test_a_run_is_what_fl_run_makes_of_it_from_each_silos_own_rows(
    federation: Services, fl: Fl, tmp_path: Path
):
    file = write(tmp_path)
    submitted = federation.fl("submit", file)
    assert submitted.code == 0, submitted.err
    assert "fl logs -f" in submitted.err
    runs = [
        submitted.out.strip(),
        federation.submit(file, "model={name: xgboost}", "strategy={name: bagging}"),
    ]
    log = federation.fl("logs", "-f", runs[0])
    assert "round 2" in log.out
    for run_id, model in zip(runs, ("mlp", "xgboost"), strict=True):
        assert federation.wait_status(run_id, "completed", "failed")["status"] == "completed"
        assert federation.fl("fetch", run_id).code == 0
        other = ["--set", f"model={{name: {model}}}"] if model == "xgboost" else []
        other += ["--set", "strategy={name: bagging}"] if model == "xgboost" else []
        assert fl("run", file, "--out", tmp_path / model, *other).code == 0
        fetched = federation.folder / "runs" / run_id
        for name in ("model.safetensors", "preprocessing.json", "scores.json"):
            assert sha256(fetched / name) == sha256(tmp_path / model / name), name
        assert (fetched / "report.html").stat().st_size > 10_000
        manifest = json.loads((fetched / "manifest.json").read_text())
        assert set(manifest["certificates_sha256"]) == {"aggregator", *TWO}
    # No process but the roles' loads a learning library, and they are gone.
    for service in (federation.now[name] for name in ("coordinator", *TWO)):
        maps = Path(f"/proc/{service.process.pid}/maps").read_text()
        assert "libtorch" not in maps
        assert "xgboost" not in maps
        assert service.ask("/healthy") == (200, "healthy")
    shown = federation.fl("status").out
    assert "cleveland" in shown
    assert "completed" in shown
    predicted = federation.fl("predict", runs[0], HOSPITALS / "cleveland.csv")
    assert predicted.out.startswith("row,score\n1,0.")
    again = federation.fl("fetch", runs[0])
    assert again.code == 14
    assert "exists" in again.err
    kept = (federation.folder / "runs").iterdir()
    assert not [path for path in kept if path.name.startswith(".")]


def test_a_csv_example_takes_its_schema_along(federation: Services, fl: Fl, tmp_path: Path):
    example = ROOT / "examples" / "own-csv"
    federation.ready(*(federation.agent(silo, example) for silo in ("north", "south")))
    run_id = federation.submit(example / "run.yaml", "rounds=1")
    assert federation.wait_status(run_id, "completed", "failed")["status"] == "completed"
    assert federation.fl("fetch", run_id, "--out", tmp_path / "fetched").code == 0
    assert fl("run", example / "run.yaml", "--set", "rounds=1", "--out", tmp_path / "own").code == 0
    one, other = (tmp_path / name / "model.safetensors" for name in ("fetched", "own"))
    assert sha256(one) == sha256(other)


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Services]:
    """A federation of one test's own, of which no process runs yet."""
    with services(tmp_path) as found:
        yield found


def test_strangers_are_turned_away_and_named_in_the_logs(strict: Services, tmp_path: Path):
    federation = strict
    coordinator = federation.coordinator("--exclude", "hungary")
    # a silo's certificate in an operator's place
    silo = federation.authority.silo("cleveland")
    silo.save(tmp_path / "cleveland")
    refused = federation.fl("status", identity="cleveland")
    assert refused.code == 19
    assert "a silo, not of an operator" in refused.err
    # the same by a program that does not look
    with pytest.raises(TransportError, match=silo.fingerprint):
        Operator(silo, f"127.0.0.1:{federation.port}").status()
    coordinator.wait_log(f"certificate SHA-256 {silo.fingerprint}: it is no operator")
    # a silo that was excluded
    excluded = federation.agent("hungary")
    assert excluded.process.wait(60) == 15
    own = federation.authority.silo("hungary")
    assert "excluded" in excluded.log()
    coordinator.wait_log("spiffe://trial/silo/hungary")
    # an operator in a silo's place
    (tmp_path / "data").mkdir(exist_ok=True)
    operator = federation.fl("agent", "--data", "data", identity="ann")
    assert operator.code == 19
    # another federation of the same authority
    other = federation.authority
    federation_name, other.federation = other.federation, "elsewhere"
    stranger, eve = other.silo("cleveland"), other.operator("eve")
    other.federation = federation_name
    stranger.save(tmp_path / "stranger")
    eve.save(tmp_path / "eve")
    assert federation.fl("status", identity="eve").code == 15
    # another authority
    foreign = Authority(FEDERATION, dt.timedelta(hours=1)).operator("ann")
    foreign.save(tmp_path / "foreign")
    refused = federation.fl("status", identity="foreign")
    assert refused.code == 15
    assert foreign.fingerprint in refused.err
    # the same, with the right authority's certificate beside it
    posing = replace(foreign, authority=federation.authority.certificate)
    with pytest.raises(TransportError, match=posing.fingerprint):
        Operator(posing, f"127.0.0.1:{federation.port}").status()
    coordinator.wait_log("Handshake failed with error SSL_ERROR_SSL")
    assert own.fingerprint != stranger.fingerprint
    assert federation.status()["silos"] == []
    # One certificate, of a party that keeps its place: by its fingerprint.
    coordinator.end()
    stolen = federation.authority.operator("ann")
    stolen.save(tmp_path / "stolen")
    coordinator = federation.coordinator("--exclude", stolen.fingerprint)
    refused = federation.fl("status", identity="stolen")
    assert refused.code == 15
    assert "spiffe://trial/operator/ann is excluded from the federation" in refused.err
    assert federation.status()["excluded"] == [stolen.fingerprint]
    wrong = federation.fl("coordinator", "--identity", "aggregator", "--exclude", "North")
    assert wrong.code == 2
    assert "neither a silo's name nor a SHA-256" in wrong.err


def test_what_cannot_be_run_is_refused_at_once_and_nothing_is_queued(
    federation: Services, tmp_path: Path
):
    before = federation.status()["runs"]
    cases = [
        ("silos", ["cleveland", "switzerland"], 20, "silo 'switzerland' has never joined"),
        ("model", {"name": "nothing"}, 11, "unknown model 'nothing'"),
        ("model", {"name": "mlp", "params": {"learning_rate": -1}}, 12, "learning_rate"),
        ("strategy", {"name": "bagging"}, 12, "does not work with"),
        ("rounds", 0, 10, "rounds"),
        ("silos", [{"name": "cleveland", "data": "/etc/passwd"}], 13, "/etc/passwd"),
        ("silos", [{"name": "cleveland", "data": "../x.csv"}], 13, ".."),
    ]
    for name, value, code, text in cases:
        refused = federation.fl("submit", write(tmp_path, **{name: value}))
        assert (refused.code, text in refused.err) == (code, True), refused.err
        assert "Traceback" not in refused.err
        assert "what to do:" in refused.err
    for command in ("stop", "fetch", "logs", "remove"):
        refused = federation.fl(command, "nothing-20260101-000000-00000000")
        assert refused.code == 20
        assert "no run" in refused.err
    refused = federation.fl("readmit", "cleveland")
    assert refused.code == 20
    assert "silo 'cleveland' is not set aside" in refused.err
    # A silo that lacks the model: its agent runs without the plugin.
    assert federation.now["cleveland"].end() == 0
    lacking = federation.agent("cleveland", FL_PLUGINS="fl-core-xgboost,probe")
    federation.ready(lacking)
    refused = federation.fl("submit", write(tmp_path))
    assert refused.code == 20
    assert "silo 'cleveland' has no model 'mlp'" in refused.err
    assert lacking.end() == 0
    assert federation.status()["runs"] == before


def test_runs_wait_for_their_turn_and_can_be_stopped(federation: Services, tmp_path: Path):
    coordinator = federation.now["coordinator"]
    slow = federation.submit(probe(tmp_path, "waits"))
    second, third = (federation.submit(probe(tmp_path)) for _ in range(2))
    wait_for(lambda: federation.run(slow)["round"] == 1, "the first round")
    assert [run["status"] for run in federation.status()["runs"]][-3:] == [
        "running",
        "queued",
        "queued",
    ]
    early = federation.fl("fetch", slow)
    assert early.code == 20
    assert "is running" in early.err
    # No key in any process's arguments or environment.
    for pid in (coordinator.process.pid, *children_of(coordinator.process.pid)):
        for name in ("cmdline", "environ"):
            assert b"PRIVATE KEY" not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert json.loads(federation.fl("stop", second, "--json").out)["was"] == "queued"
    assert json.loads(federation.fl("stop", slow, "--json").out)["was"] == "running"
    stopped = federation.wait_status(slow, "interrupted", "failed", "completed")
    assert stopped["status"] == "interrupted"
    assert stopped["error"]["message"] == "stopped by ann"
    assert federation.wait_status(third, "completed", "failed")["status"] == "completed"
    assert federation.run(second)["status"] == "interrupted"
    assert federation.fl("stop", third).code == 20
    assert federation.fl("remove", second).out == f"{second} is removed\n"
    assert second not in federation.fl("status").out
    assert federation.fl("fetch", slow).code == 0
    manifest = json.loads((federation.folder / "runs" / slow / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    # The silos' roles are gone as well.
    wait_for(lambda: federation.now["hungary"].roles() == {}, "the end of the silo's role")


def test_a_silo_that_cannot_take_part_ends_the_run_and_tells_nothing_of_its_rows(
    federation: Services, tmp_path: Path
):
    text = (HOSPITALS / "hungary.csv").read_text().splitlines(keepends=True)
    text[1] = text[1].replace(",", ",secret-cell,", 1).replace(",secret-cell,", ",54321x,", 1)
    (federation.folder / "data" / "hungary" / "broken.csv").write_text("".join(text))
    silos = ["cleveland", {"name": "hungary", "data": "broken.csv"}]
    run_id = federation.submit(write(tmp_path, silos=silos))
    run = federation.wait_status(run_id, "failed", "completed")
    assert run["error"]["code"] == 16
    assert "silo 'hungary'" in run["error"]["message"]
    assert "data" in run["error"]["message"]
    assert federation.fl("fetch", run_id).code == 0
    said = federation.now["coordinator"].log()
    assert "54321x" not in federation.fl("logs", run_id).out + said + json.dumps(run)
    own = federation.now["hungary"].log()
    assert "54321x" in own or "cells, but" in own


def test_sigterm_ends_services_and_their_roles(federation: Services, tmp_path: Path):
    slow = federation.submit(probe(tmp_path, "waits"))
    wait_for(lambda: federation.run(slow)["round"] == 1, "the first round")
    assert federation.now["coordinator"].end() == 0
    assert federation.manifest(slow)["status"] == "running"
    agents = [federation.now[silo] for silo in TWO]
    wait_for(lambda: agents[0].ask("/ready")[0] == 503, "the agent to see it")
    assert agents[0].ask("/healthy")[0] == 200
    below = [child for agent in agents for child in children_of(agent.process.pid)]
    assert [agent.end() for agent in agents] == [0, 0]
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "no process is left")
    # What was not told to go on can be stopped.
    federation.coordinator()
    shown = federation.fl("status").out
    assert federation.run(slow)["status"] == "running"
    assert "running: waits for" in " ".join(shown.split())
    assert json.loads(federation.fl("stop", slow, "--json").out)["was"] == "running"
    federation.wait_status(slow, "interrupted")
    assert federation.fl("fetch", slow).code == 0


def test_a_service_that_cannot_start_says_why(federation: Services, tmp_path: Path):
    coordinator = federation.now["coordinator"]
    for options, text in (
        (["--folder", "second"], "cannot listen on 127.0.0.1"),
        (["--folder", "ann/tls.crt"], "ann/tls.crt"),
    ):
        done = federation.fl(
            *("coordinator", "--identity", "aggregator", "--port", str(federation.port)),
            *("--health", "127.0.0.1:0", *options),
        )
        assert done.code in (15, 18, 20)
        assert text in done.err
        assert "what to do:" in done.err
    taken = federation.fl(
        *("coordinator", "--identity", "aggregator", "--folder", "third"),
        *("--health", f"127.0.0.1:{coordinator.health}"),
    )
    assert taken.code == 20
    assert "--health" in taken.err
    for data, text in (("nowhere", "does not exist"), ("s3://X", "no bucket's name")):
        done = federation.fl("agent", "--data", data, identity="cleveland")
        assert done.code == 13
        assert text in done.err
