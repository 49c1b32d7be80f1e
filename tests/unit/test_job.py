"""A job: names, silos and the initial state are checked against the run file, with its lines."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from fl_core import plugins as plugin_loader
from fl_core.datasets import CsvDataset, HeartDisease
from fl_core.datasets.heart_disease import shipped
from fl_core.errors import DataError, FlError, ParameterError, RoleError, SpecError, UpdateError
from fl_core.job import Job, check_initial_state, resolve
from fl_core.model import FitContext, Model, ModelParams, Update
from fl_core.plugins import Plugins
from fl_core.spec import load
from fl_core.state import State, encode
from fl_core.yaml_file import SpecSource

RUN = """\
dataset: {name: heart-disease}
silos:
  - cleveland
  - hungary
  - {name: switzerland, data: own/switzerland.csv}
model: {name: fixed}
strategy: {name: fedavg}
rounds: 1
max_state_bytes: 2000
"""
CSV_RUN = """\
dataset: {name: csv, params: {schema_file: schema.yaml}}
silos: [{name: a, data: a.csv}, b]
model: {name: fixed}
strategy: {name: fedavg}
rounds: 1
"""
SCHEMA = """\
columns: {age: {kind: number}}
label: {column: ill, negative: [0], positive: [1]}
"""


class Fixed(Model):
    """A model whose initial state a test chooses."""

    name: ClassVar[str] = "fixed"
    Params: ClassVar[type[ModelParams]] = ModelParams
    strategies: ClassVar[tuple[str, ...]] = ("fedavg",)
    initial: ClassVar[Any] = None

    def initial_state(self, seed: int) -> State:
        if isinstance(self.initial, Exception):
            raise self.initial
        return self.initial

    def fit(self, state: State, table: object, context: FitContext) -> Update:
        raise NotImplementedError

    def predict(self, state: State, table: object) -> np.ndarray:
        raise NotImplementedError


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Plugins:
    monkeypatch.setenv("FL_PLUGINS", "")
    loaded = plugin_loader.load()
    loaded.models["fixed"] = Fixed
    return loaded


def job_of(
    folder: Path, text: str, plugins: Plugins, own_data: Path | None = None
) -> tuple[Job, SpecSource]:
    path = folder / "run.yaml"
    path.write_text(text)
    spec, source = load(path)
    return resolve(spec, source, plugins, folder, own_data), source


def refused(folder: Path, text: str, plugins: Plugins) -> FlError:
    with pytest.raises(FlError) as caught:
        job_of(folder, text, plugins)
    return caught.value


def test_a_path_for_a_dataset_that_takes_none_is_named_with_its_line(
    tmp_path, plugins, monkeypatch
):
    monkeypatch.setattr(HeartDisease, "takes_data", False)
    error = refused(tmp_path, RUN, plugins)
    assert type(error) is SpecError
    assert error.message.startswith(f"{tmp_path / 'run.yaml'}:5: silos.2.data: ")
    assert "takes no data path (value 'own/switzerland.csv')" in error.message


def test_an_unknown_silo_is_named_with_the_line_of_its_own_entry(tmp_path, plugins):
    path = tmp_path / "run.yaml"
    path.write_text(RUN.replace("hungary", "hungaria"))
    spec, source = load(path)
    only = spec.model_copy(update={"silos": spec.silos[1:2]})
    with pytest.raises(SpecError) as caught:
        resolve(only, source, plugins, tmp_path)
    assert caught.value.message.startswith(f"{path}:4: silos.1: ")
    assert "did you mean 'hungary'?" in caught.value.remedy


def test_a_silo_without_rows_names_its_file(tmp_path, plugins):
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    (tmp_path / "a.csv").write_text("age,ill\n")
    job, _ = job_of(tmp_path, CSV_RUN, plugins)
    with pytest.raises(DataError, match="silo 'a' has 0 usable rows") as caught:
        job.load("a")
    assert caught.value.message.startswith(f"{tmp_path / 'a.csv'}: ")
    assert isinstance(job.dataset, CsvDataset)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("asynchronous", "{buffer: 2}"),
        ("late_updates", "{}"),
        ("personalisation", "{method: ditto}"),
    ],
)
def test_a_strategy_whose_updates_are_no_states_is_refused_beside_what_takes_states(
    tmp_path, plugins, monkeypatch, field, value
):
    monkeypatch.setattr(Fixed, "strategies", ("bagging", "fedavg"))
    job_of(tmp_path, GOOD_RUN + f"{field}: {value}\n", plugins)
    error = refused(
        tmp_path, GOOD_RUN.replace("fedavg", "bagging") + f"{field}: {value}\n", plugins
    )
    assert type(error) is ParameterError
    assert f"strategy 'bagging' and {field} are given" in error.message
    assert "run.yaml:7: strategy.name" in error.message


def test_a_robust_strategy_needs_a_quorum_for_its_bound(tmp_path, plugins, monkeypatch):
    monkeypatch.setattr(Fixed, "strategies", ("trimmed-mean",))
    robust = GOOD_RUN.replace("{name: fedavg}", "{name: trimmed-mean, params: {trim: 1}}")
    job_of(tmp_path, robust, plugins)
    error = refused(tmp_path, robust + "quorum: {min_silos: 2}\n", plugins)
    assert type(error) is ParameterError
    assert "needs 3 updates" in error.message
    assert "a round may have 2 (quorum.min_silos)" in error.message
    assert "min_silos: 3" in error.remedy


GOOD_RUN = RUN.replace("{name: switzerland, data: own/switzerland.csv}", "switzerland")


def test_an_initial_state_over_the_limit_is_refused_with_both_sizes(tmp_path, plugins, monkeypatch):
    state = {"w": np.zeros(500)}
    monkeypatch.setattr(Fixed, "initial", state)
    job, source = job_of(tmp_path, GOOD_RUN, plugins)
    size = len(encode(state))
    with pytest.raises(ParameterError) as caught:
        check_initial_state(job, source)
    assert caught.value.message == (
        f"{tmp_path / 'run.yaml'}:9: max_state_bytes: the initial state of model 'fixed' has "
        f"{size} bytes, over the limit of 2000"
    )
    assert f"`max_state_bytes: {size}`" in caught.value.remedy
    job, source = job_of(tmp_path, GOOD_RUN.replace("2000", str(size)), plugins)
    check_initial_state(job, source)


@pytest.mark.parametrize(
    ("initial", "kind", "said"),
    [
        (KeyError("w"), RoleError, "model 'fixed' in initial_state raised KeyError"),
        (None, RoleError, "model 'fixed' in initial_state raised"),
        ({"w": np.zeros(1, dtype=complex)}, UpdateError, "'w' has type complex128"),
    ],
)
def test_an_initial_state_that_is_none_is_blamed_on_the_model(
    tmp_path, plugins, monkeypatch, initial, kind, said
):
    monkeypatch.setattr(Fixed, "initial", initial)
    with pytest.raises(kind, match=said):
        check_initial_state(*job_of(tmp_path, GOOD_RUN, plugins))


# --- in a silo that an agent has started: the run file came over the network ---


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """The silo's own folder, with rows of Switzerland; another file lies beside it."""
    folder = tmp_path / "data"
    (folder / "own").mkdir(parents=True)
    rows = shipped("switzerland").read_text()
    (folder / "switzerland.csv").write_text(rows)
    (folder / "own" / "switzerland.csv").write_text("".join(rows.splitlines(True)[:-20]))
    (tmp_path / "secret.csv").write_text("hospital,fold\nsecret,train\n")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "inside.csv").symlink_to("own/../switzerland.csv")
    return folder


def rows_of(job: Job, silo: str) -> int:
    return sum(job.load(silo).counts.values())


def test_without_a_path_an_agents_silo_reads_its_own_file(tmp_path, plugins, own_data):
    job, _ = job_of(tmp_path, GOOD_RUN, plugins, own_data)
    assert rows_of(job, "switzerland") == 46
    with pytest.raises(DataError, match="No such file") as caught:  # and never the shipped one
        job.load("cleveland")
    assert str(own_data / "cleveland.csv") in caught.value.message


def test_a_path_of_an_agents_silo_starts_in_its_own_folder(tmp_path, plugins, own_data):
    job, _ = job_of(tmp_path, RUN, plugins, own_data)
    assert 0 < rows_of(job, "switzerland") < 46
    linked = RUN.replace("own/switzerland.csv", "inside.csv")
    assert rows_of(job_of(tmp_path, linked, plugins, own_data)[0], "switzerland") == 46


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/etc/passwd", "is an absolute path"),
        ("../secret.csv", "holds '..'"),
        ("own/../../secret.csv", "holds '..'"),
        ("link.csv", "is a link that leads out of it"),
        ("own/../link.csv", "holds '..'"),
        ("loop.csv", "cannot be followed"),
        ('"own\\0.csv"', "is no path"),
    ],
)
def test_a_path_that_leads_out_of_an_agents_folder_is_refused(
    tmp_path, plugins, own_data, path, problem
):
    text = RUN.replace("own/switzerland.csv", path)
    job, _ = job_of(tmp_path, text, plugins, own_data)
    with pytest.raises(DataError) as caught:
        job.load("switzerland")
    given = next(silo.data for silo in job.spec.silos if silo.data)
    assert f"path {given!r} {problem}" in caught.value.message
    assert "secret.csv" not in caught.value.message.replace(repr(given), "")


def test_the_path_is_confined_too_for_a_dataset_that_joins_paths_by_itself(
    tmp_path, plugins, own_data, monkeypatch
):
    def load(self: CsvDataset, silo: str, data: str | None) -> object:
        raise AssertionError(f"opened {self.folder / str(data)}")

    monkeypatch.setattr(HeartDisease, "load", load)
    job, _ = job_of(tmp_path, RUN.replace("own/", "../"), plugins, own_data)
    with pytest.raises(DataError, match=r"holds '\.\.'"):
        job.load("switzerland")


@pytest.mark.parametrize("path", ["/etc/passwd", "../schema.yaml", "schema-link.yaml"])
def test_a_schema_file_of_a_run_file_from_the_network_is_confined(
    tmp_path, plugins, own_data, path
):
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    (own_data / "schema-link.yaml").symlink_to(tmp_path / "schema.yaml")
    with pytest.raises(DataError, match=path):
        job_of(tmp_path, CSV_RUN.replace("schema.yaml", path), plugins, own_data)


def test_a_dataset_that_takes_no_path_gets_none_from_an_agent(
    tmp_path, plugins, own_data, monkeypatch
):
    monkeypatch.setattr(HeartDisease, "takes_data", False)
    job, _ = job_of(tmp_path, GOOD_RUN, plugins, own_data)
    assert rows_of(job, "cleveland") == 303


def test_portable_parameters_need_no_file(tmp_path, plugins, own_data):
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    job, _ = job_of(tmp_path, CSV_RUN, plugins)
    there = job.spec.model_copy(
        update={"dataset": job.spec.dataset.model_copy(update={"params": job.dataset.portable()})}
    )
    assert resolve(there, SpecSource("x", {}), plugins, tmp_path, own_data).schema == job.schema
    heart, _ = job_of(tmp_path, GOOD_RUN, plugins)
    assert heart.dataset.portable() == {"cholesterol_zero": "value"}


INLINE = """\
dataset:
  name: csv
  params:
    schema:
      columns:
        age: {kind: number, minimum: 0}
      label: {column: sick, negative: [0], positive: [1]}
silos: [{name: a, data: a.csv}]
model: {name: fixed}
strategy: {name: fedavg}
rounds: 1
"""


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("minimum", "minimun", "6: dataset.params.schema.columns.age.minimun", "unknown field"),
        ("number", "nmber", "6: dataset.params.schema.columns.age.kind", "must be number or cat"),
        ("[0]", "0", "7: dataset.params.schema.label.negative", "must be a list"),
        ("column: sick", "column: age", "4: dataset.params.schema", "is also a feature"),
        ("      label:", "      labl:", "4: dataset.params.schema.label", "is missing"),
        ("    schema:", "    schemas:", "4: dataset.params.schemas", "unknown field"),
        ("    schema:", "    schema_file: x\n    schema:", "3: dataset.params", "both are given"),
    ],
)
def test_a_bad_schema_in_the_run_file_is_named_with_line_and_field(
    tmp_path, plugins, old, new, place, said
):
    assert INLINE.count(old) == 1
    error = refused(tmp_path, INLINE.replace(old, new), plugins)
    assert type(error) is ParameterError
    assert error.message.startswith(f"{tmp_path / 'run.yaml'}:{place}: ")
    assert said in error.message
    assert error.remedy
