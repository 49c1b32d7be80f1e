"""Writes and reads runs with SageMaker's own SDK, in the environment that has it: see :mod:`.sdk`.

Every function returns what can be said in JSON.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from sagemaker.core.analytics import ExperimentAnalytics  # pyright: ignore
from sagemaker.core.experiments.run import (  # pyright: ignore
    Run,
    list_runs,
    load_run,
)
from sagemaker.core.helper.session_helper import Session  # pyright: ignore


def write(experiment: str, bucket: str, *runs: str) -> dict[str, Any]:
    """Runs with parameters, 12 points of a metric, and a file."""
    session = Session(default_bucket=bucket)
    configs = []
    for run in runs:
        with Run(experiment_name=experiment, run_name=run, sagemaker_session=session) as written:
            written.log_parameters({"learning-rate": 0.05, "model": "mlp", "center": "berlin"})
            for step in range(1, 13):
                written.log_metric(name="Test:AUC", value=0.5 + step / 100, step=step)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "summary.json"
                path.write_text("{}")
                written.log_file(str(path), name="summary")
        configs.append(written.experiment_config)
    return {"configs": configs}


def chart(experiment: str, bucket: str, run: str) -> dict[str, Any]:
    """Go on with a run, and give it a table as an artifact of its own."""
    session = Session(default_bucket=bucket)
    with load_run(run, experiment, session, artifact_bucket=bucket) as loaded:
        kept = {"parameters": dict(loaded._trial_component.parameters)}
        loaded.log_parameter("resumed", 1)
        loaded._log_graph_artifact({"type": "ROCCurve"}, "ROCCurve", True, "roc")
    return kept


def read(experiment: str, bucket: str) -> dict[str, Any]:
    """The experiment's runs and the table of them, the oldest first."""
    session = Session(default_bucket=bucket)
    runs = list_runs(experiment_name=experiment, sagemaker_session=session)
    frame = ExperimentAnalytics(
        experiment_name=experiment,
        sort_by="CreationTime",
        sort_order="Ascending",
        sagemaker_session=session,
    ).dataframe()
    return {
        "runs": [one.run_name for one in reversed(runs)],
        "table": json.loads(frame.to_json(orient="records")),
    }


def go_on(experiment: str, run: str) -> dict[str, Any]:
    """What a run of an experiment has; it is given one more metric, "Later"."""
    table = ExperimentAnalytics(experiment_name=experiment).dataframe()
    with load_run(run_name=run, experiment_name=experiment) as loaded:
        component = loaded._trial_component
        found = {
            "runs": [one.run_name for one in list_runs(experiment)],
            "parameters": component.parameters,
            "metrics": {one.metric_name: [one.count, one.last] for one in component.metrics},
            "artifacts": {name: one.value for name, one in component.output_artifacts.items()},
            "names": list(table["DisplayName"]),
            "last": list(table["Test:AUC - Last"]),
            "rates": list(table["learning-rate"]),
        }
        loaded.log_metric(name="Later", value=1.0, step=1)
    return found
