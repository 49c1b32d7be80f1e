"""metrics.jsonl: one JSON object a line, for every figure of a run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from fl_core.files import storing
from fl_core.metrics import Value

TRAINING_LOSS = "Training:Loss"
VALIDATION_AUC = "Validation:AUC"
TEST_AUC = "Test:AUC"
TEST_LOSS = "Test:Loss"
TEST_ACCURACY = "Test:Accuracy"
ROUND_SECONDS = "Duration:Round"
FIT_SECONDS = "Duration:Fit"
SCORE_SECONDS = "Duration:Score"
AGGREGATE_SECONDS = "Duration:Aggregate"
BYTES_DOWN = "Bytes:Down"
BYTES_UP = "Bytes:Up"


class MetricsFile:
    """Appends to a run's metrics.jsonl; rows are on their way to the disk at each flush."""

    def __init__(self, path: Path, run_id: str) -> None:
        self._path = path
        self._run_id = run_id
        with storing(path):
            self._file = path.open("a", encoding="utf-8")

    def log(self, role: str, silo: str | None, round: int, name: str, value: Value) -> None:
        """Append one figure. Raises StorageError."""
        row: dict[str, Any] = {
            "time": round_time(time.time()),
            "run": self._run_id,
            "role": role,
            "silo": silo,
            "round": round,
            "name": name,
            "value": value.number,
        }
        if value.number is None:
            row["reason"] = value.reason
        with storing(self._path):
            self._file.write(json.dumps(row, allow_nan=False) + "\n")

    def flush(self) -> None:
        """Hand what was logged to the system. Raises StorageError."""
        with storing(self._path):
            self._file.flush()

    def close(self) -> None:
        """Close the file. Raises StorageError."""
        with storing(self._path):
            self._file.close()


def round_time(seconds: float) -> float:
    """Seconds since 1970, to the microsecond."""
    return round(seconds, 6)


def read(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics.jsonl; a last line that was cut off is passed over."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return json.loads(f"[{','.join(whole)}]")
