"""Datasets that come with fl-core."""

from collections.abc import Callable

from fl_core.dataset import Dataset
from fl_core.datasets.csv import CsvDataset
from fl_core.datasets.heart_disease import HeartDisease
from fl_core.hookspecs import hookimpl


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Offer the built-in datasets."""
    register(HeartDisease)
    register(CsvDataset)
