"""What a run leaves in files of its own, and trackers: services that show it elsewhere."""

from collections.abc import Callable

from fl_core.hookspecs import hookimpl
from fl_core.tracking.contract import Tracker
from fl_core.tracking.mlflow import MLflow
from fl_core.tracking.sagemaker import SageMaker


@hookimpl
def register_trackers(register: Callable[[type[Tracker]], None]) -> None:
    """Offer the built-in trackers."""
    register(SageMaker)
    register(MLflow)
