"""Reads back with MLflow's own client what a server holds: a program for build/mlflow's Python.

A line on stdin is a JSON object, the name of a function below and its arguments; a line on stdout
is what it returns.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow.artifacts  # pyright: ignore[reportMissingImports] - not of this environment
from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]


def runs(client: MlflowClient, experiment: str) -> list[dict[str, Any]]:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    return [_whole(client, run) for run in client.search_runs([found.experiment_id])]


def delete(client: MlflowClient, experiment: str) -> None:
    client.delete_experiment(client.get_experiment_by_name(experiment).experiment_id)


def delete_run(client: MlflowClient, run: str) -> None:
    client.delete_run(run)


def _whole(client: MlflowClient, run: Any) -> dict[str, Any]:
    run_id = run.info.run_id
    history = {
        name: [
            [point.step, point.value, point.timestamp]
            for point in client.get_metric_history(run_id, name)
        ]
        for name in run.data.metrics
    }
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for one in client.list_artifacts(run_id):
            path = mlflow.artifacts.download_artifacts(
                run_id=run_id,
                artifact_path=one.path,
                dst_path=folder,
                tracking_uri=client.tracking_uri,
            )
            files[one.path] = base64.b64encode(Path(path).read_bytes()).decode()
    return {
        "id": run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "start": run.info.start_time,
        "end": run.info.end_time,
        "parameters": run.data.params,
        "tags": run.data.tags,
        "metrics": history,
        "files": files,
    }


def main() -> None:
    client = MlflowClient(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr  # what MLflow prints is no answer
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answers.write(json.dumps(globals()[name](client, *arguments)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
