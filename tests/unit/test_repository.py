"""What holds for the files of the repository as a whole."""

from __future__ import annotations

import ast
import csv
import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from fl_core.datasets.heart_disease import shipped

ROOT = Path(__file__).parents[2]
LOCKS = (
    *sorted((ROOT / "requirements").glob("*.txt")),
    *sorted((ROOT / "benchmarks").glob("*/requirements.txt")),
)
PINS = [lock for lock in LOCKS if "==" in lock.read_text(encoding="utf-8")]
UNDECLARED = {
    # FedML brings it, and roles/fedml.py must import it before FedML does.
    ("fl_core", "torch"),
    # boto3 is made on it and brings it.
    ("fl_core", "botocore"),
    # sagemaker-core brings it.
    ("fl_core", "sagemaker"),
    # How the shipped data was made: a script for developers.
    ("fl_core", "sklearn"),
}


def test_the_locks_are_found():
    assert {lock.name for lock in PINS} == {
        "bootstrap.txt",
        "image.txt",
        "lock.txt",
        "mlflow.txt",
        "requirements.txt",
        "sagemaker.txt",
        "scan.txt",
    }


@pytest.mark.parametrize("lock", PINS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_every_pin_of_a_lock_has_a_hash(lock: Path):
    text = lock.read_text(encoding="utf-8")
    pins = re.findall(r"^[a-z0-9].*(?:\n[ \t].*)*", text, re.MULTILINE)
    assert pins
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+==\S+", pin), pin
        assert re.search(r"--hash=sha256:[0-9a-f]{64}(\s|$)", pin), pin


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_no_lock_names_an_index(lock: Path):
    lines = lock.read_text(encoding="utf-8").splitlines()
    address = re.compile(r"https?://|--(extra-)?index-url|--find-links|^\s*-[if]\b")
    assert [line for line in lines if address.search(line)] == []


def files() -> list[Path]:
    """Every file that git tracks, or would."""
    # As root in CI, the clone may belong to somebody else.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]
    done = subprocess.run(
        [*command, "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_file_holds_a_path_of_somebodys_machine():
    folders = [rb"/(?:home|root|work|workspace|Users)/"]
    if len(ROOT.parts) > 2:  # a clone at /src must not forbid every "/src/"
        folders.append(re.escape(f"{ROOT}/".encode()))
    # Not after a letter or the like: then it is the end of a relative path or of an address.
    pattern = re.compile(rb"(?<![\w.)}\-])(?:" + b"|".join(folders) + rb")[\w.]")
    assert len(files()) > 100
    assert pattern.search(b"open('/ho" + b"me/ann/x')")
    assert [str(path) for path in files() if pattern.search(path.read_bytes())] == []


@pytest.mark.parametrize("folder", [".", "plugins/fl-core-mlp", "plugins/fl-core-xgboost"])
def test_everything_that_is_imported_is_declared(folder: str):
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))
    package = project["project"]["name"].replace("-", "_")
    extras = project["project"].get("optional-dependencies", {}).values()
    wanted = [*project["project"]["dependencies"], *(one for extra in extras for one in extra)]
    declared = {re.split(r"[^\w.-]", one, maxsplit=1)[0].lower() for one in wanted}
    by_module = packages_distributions()
    imported: set[str] = set()
    for file in (ROOT / folder / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {package}
    missing = {
        module
        for module in foreign
        if (package, module) not in UNDECLARED
        and not declared & {name.lower() for name in by_module.get(module, [module])}
    }
    assert foreign
    assert missing == set()


@pytest.mark.parametrize(("silo", "hospital"), [("north", "cleveland"), ("south", "hungary")])
def test_the_own_csv_example_has_real_rows_of_both_classes(silo: str, hospital: str):
    with shipped(hospital).open(encoding="utf-8", newline="") as file:
        known = Counter(_cells(row) for row in csv.DictReader(file))
    with (ROOT / "examples" / "own-csv" / f"{silo}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert Counter(_cells(row) for row in rows) <= known
    assert min(Counter(row["disease"] for row in rows).values()) >= 50


def _cells(row: dict[str, str]) -> tuple[float | None, ...]:
    cells = [row[name] for name in "age sex cp trestbps chol thalach".split()]
    ill = row["disease"] == "yes" if "disease" in row else row["num"] != "0"
    return (*(None if cell in ("", "?") else float(cell) for cell in cells), float(ill))
