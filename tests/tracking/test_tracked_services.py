"""Coordinator and agents with trackers: each party writes its own part, as itself."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import spec
from tests.integration.services import Service, Services, services
from tests.tracking.aws.fixture import ExperimentsService

TRACK = "sagemaker:prefix=trial"
SILOS = ["cleveland", "hungary"]
HUNGARY = "222222222222"


def submitted(federation: Services, rounds: int) -> str:
    file = federation.folder / "run.yaml"
    file.write_text(yaml.safe_dump(spec(silos=SILOS, rounds=rounds)))
    run_id = federation.submit(file)
    federation.wait_status(run_id, "completed")
    return run_id


def complete(service: Service, run_id: str, role: str) -> None:
    service.wait_log(f"tracking sagemaker: run {run_id}, {role}: delivered")


def figures(folder: Path, silo: str | None) -> Counter[tuple[str, int]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return Counter(
        (row["name"], row["round"])
        for row in rows
        if row["silo"] == silo and ":" in row["name"] and row["value"] is not None
        if row["name"].partition(":")[0] in ("Training", "Validation", "Test")
    )


@pytest.mark.slow
def test_every_party_writes_into_its_own_account_and_catches_up(
    experiments_service: ExperimentsService, tmp_path: Path
):
    own = experiments_service.assume(HUNGARY)
    with services(tmp_path, FL_TRACK=TRACK) as federation:
        coordinator = federation.coordinator()
        cleveland, hungary = federation.agent("cleveland"), federation.agent("hungary", **own)
        federation.ready(cleveland, hungary)
        first = submitted(federation, 2)
        complete(coordinator, first, "aggregator")
        complete(cleveland, first, "silo cleveland")
        complete(hungary, first, "silo hungary")
        here = experiments_service.components().keys()
        assert here == {f"trial-aggregator-{first}", f"trial-client-cleveland-{first}"}
        there = experiments_service.components(HUNGARY).keys()
        assert there == {f"trial-client-hungary-{first}"}

        # The service hangs in the middle of a run, and the agent is killed before it comes back.
        experiments_service.fault("hang", operation="BatchPutMetrics")
        second = submitted(federation, 4)
        federation.status()
        hungary.process.kill()
        hungary.process.wait()
        experiments_service.reset()
        experiments_service.release()
        again = federation.agent("hungary", **own)
        complete(again, second, "silo hungary")
        complete(cleveland, second, "silo cleveland")
        complete(coordinator, second, "aggregator")
        for silo, folder, account in (
            (None, tmp_path / "coordinator/runs", None),
            ("cleveland", tmp_path / "agents/cleveland/runs", None),
            ("hungary", tmp_path / "agents/hungary/runs", HUNGARY),
        ):
            party = "aggregator" if silo is None else f"client-{silo}"
            name = f"trial-{party}-{second}"
            kept = {} if account is None else {"account": account}
            points = experiments_service.points(name, **kept)
            expected = figures(folder / second, silo)
            assert expected
            assert Counter((point.name, point.step) for point in points) == expected
            found = experiments_service.component(name, **kept)
            assert found is not None
            assert found["Status"]["PrimaryStatus"] == "Completed", (silo, found["Status"])
        assert coordinator.end() == 0
