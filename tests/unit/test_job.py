"""A job: names, silos and the initial state are checked against the run file, with its lines."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from fl_core import plugins as plugin_loader
from fl_core.datasets import CsvDataset
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
  - {name: switzerland, data: switzerland.csv}
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


def job_of(folder: Path, text: str, plugins: Plugins) -> tuple[Job, SpecSource]:
    path = folder / "run.yaml"
    path.write_text(text)
    spec, source = load(path)
    return resolve(spec, source, plugins, folder), source


def refused(folder: Path, text: str, plugins: Plugins) -> FlError:
    with pytest.raises(FlError) as caught:
        job_of(folder, text, plugins)
    return caught.value


def test_a_path_for_a_dataset_that_takes_none_is_named_with_its_line(tmp_path, plugins):
    error = refused(tmp_path, RUN, plugins)
    assert type(error) is SpecError
    assert error.message.startswith(f"{tmp_path / 'run.yaml'}:5: silos.2.data: ")
    assert "takes no data path (value 'switzerland.csv')" in error.message


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


GOOD_RUN = RUN.replace("{name: switzerland, data: switzerland.csv}", "switzerland")


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
