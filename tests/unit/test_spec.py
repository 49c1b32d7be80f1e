"""Run files: what is taken, and where every error points."""

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from fl_core.errors import SpecError
from fl_core.spec import RunSpec, as_json, load, schema
from fl_core.yaml_file import MAX_FILE_BYTES

GOOD = """\
name: heart
dataset: {name: heart-disease}
silos: [hungary, cleveland]
model:
  name: mlp
  params:
    layers: [16]
strategy:
  name: fedavg
rounds: 20
seed: 42
split:
  test: 0.34
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(path: Path, *settings: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load(path, settings)
    assert caught.value.remedy
    return caught.value


def complaint(path: Path, *settings: str) -> str | None:
    """What is wrong with a run file, or None."""
    try:
        load(path, settings)
    except SpecError as error:
        return error.message
    return None


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_a_run_file_is_read(tmp_path):
    spec, source = load(write(tmp_path, GOOD))
    assert spec.silo_names == ("cleveland", "hungary")
    assert [silo.name for silo in spec.silos] == ["hungary", "cleveland"]
    assert spec.model.params == {"layers": [16]}
    assert (spec.rounds, spec.seed, spec.split.test, spec.split.seed) == (20, 42, 0.34, 43)
    assert source.where(["model", "params", "layers"]) == (
        f"{tmp_path / 'run.yaml'}:7: model.params.layers"
    )


def test_silos_may_bring_paths(tmp_path):
    spec, _ = load(write(tmp_path, changed("hungary,", "{name: hungary, data: h.csv},")))
    assert [(silo.name, silo.data) for silo in spec.silos] == [
        ("hungary", "h.csv"),
        ("cleveland", None),
    ]


@pytest.mark.parametrize(
    ("old", "new", "place", "problem"),
    [
        ("rounds: 20", "round: 20", "1: rounds", "is missing"),
        ("rounds: 20", "rounds: 0", "10: rounds", "greater than or equal to 1 (value 0)"),
        ("rounds: 20", "rounds: many", "10: rounds", "must be a whole number (value 'many')"),
        ("rounds: 20", "rounds: 1000000", "10: rounds", "less than or equal to 100000"),
        ("seed: 42", "seed: -1", "11: seed", "(value -1)"),
        ("seed: 42", "seed: 9223372036854775808", "11: seed", "less than 9223372036854775808"),
        ("test: 0.34", "test: 1", "13: split.test", "less than 1 (value 1)"),
        ("name: heart\n", "name: Heart!\n", "1: name", "lower-case letters"),
        ("name: mlp", "nme: mlp", "4: model.name", "is missing"),
        ("[hungary, cleveland]", "[hungary, hungary]", "3: silos", "silo 'hungary' stands twice"),
        ("[hungary, cleveland]", "[hungary, Ungarn]", "3: silos.1", "lower-case letters"),
        ("[hungary, cleveland]", "[hungary, 7]", "3: silos.1", "(value 7)"),
        ("[hungary, cleveland]", "[]", "3: silos", "give at least one silo"),
        ("[hungary, cleveland]", "hungary", "3: silos", "(value 'hungary')"),
        ("  name: fedavg", "  fedavg", "8: strategy", "(value 'fedavg')"),
        ("seed: 42", "max_state_bytes: 10", "11: max_state_bytes", "(value 10)"),
    ],
)
def test_a_wrong_field_is_named_with_file_line_and_value(tmp_path, old, new, place, problem):
    path = write(tmp_path, changed(old, new))
    message = refused(path).message
    assert message.startswith(f"{path}:{place}: ")
    assert problem in message


@pytest.mark.parametrize(
    ("old", "new", "place", "meant"),
    [
        ("seed: 42", "sed: 42", "11: sed", "seed"),
        ("  test: 0.34", "  tests: 0.34", "13: split.tests", "test"),
        ("    layers: [16]", "    layers: [16]\n  param: {}", "8: model.param", "params"),
        ("hungary,", "{name: hungary, dat: x},", "3: silos.0.dat", "data"),
    ],
)
def test_a_misspelt_field_gets_a_suggestion(tmp_path, old, new, place, meant):
    path = write(tmp_path, changed(old, new))
    error = refused(path)
    assert error.message.startswith(f"{path}:{place}: unknown field")
    assert f"did you mean {meant!r}?" in error.remedy


@pytest.mark.parametrize("name", ["-a", "a-", "a b", "a/b", "..", "a" * 64, "é", "a\\n", "A"])
def test_silo_names_are_dns_labels(tmp_path, name):
    path = write(tmp_path, changed("[hungary, cleveland]", f'["{name}"]'))
    assert f"{path}:3: silos.0: use lower-case letters" in refused(path).message


def test_the_longest_silo_name_is_taken(tmp_path):
    spec, _ = load(write(tmp_path, changed("[hungary, cleveland]", f"[{'a' * 63}, b]")))
    assert spec.silo_names == ("a" * 63, "b")


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (GOOD + "rounds: 3\n", 14, "rounds stands twice"),
        (GOOD + "  test: 0.5\n", 14, "test stands twice"),
        (GOOD.replace("[16]", "&x [16]\n    more: *x"), 7, "aliases are not taken"),
        (GOOD.replace("[16]", "&x [*x]"), 7, "aliases are not taken"),
        (GOOD + "x: [1\n", 15, "not YAML"),
        (GOOD + "\tx: 1\n", 14, "not YAML"),
        (GOOD + "x: !!python/object/apply:os.system [id]\n", 14, "not YAML"),
        (GOOD + "---\na: 1\n", 14, "not YAML"),
        ("[1, 2]", 1, "is no mapping"),
        ("word", 1, "is no mapping"),
        ("", 1, "is no mapping"),
    ],
)
def test_what_is_no_plain_mapping_is_refused_with_its_line(tmp_path, text, line, problem):
    path = write(tmp_path, text)
    message = refused(path).message
    assert message.startswith(f"{path}:{line}: ")
    assert problem in message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    absent = tmp_path / "absent.yaml"
    assert refused(absent).message == f"{absent}: No such file or directory"
    assert refused(tmp_path).message == f"{tmp_path}: Is a directory"


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    path = write(tmp_path, b"name: \xff")
    assert refused(path).message == f"{path}: byte 6 is not UTF-8"


def test_an_over_large_file_is_refused(tmp_path):
    path = write(tmp_path, GOOD.encode() + b"#" * MAX_FILE_BYTES)
    assert refused(path).message == f"{path} is over {MAX_FILE_BYTES} bytes"


@given(st.text(max_size=80))
@example("!!int ''")
@example("a: !!bool maybe")
@example("a: !!timestamp never")
@example("a: 2001-13-45")
@example("a: " + "1" * 5000)
@example("[" * 1200)
@example("? [a]\n: b")
@example("? {a: b}\n: b")
@example("<<: 3")
@example("1: 2")
@example("a: \x00")
@example("\ufeff" + GOOD.replace("20", "x"))
def test_any_text_is_a_spec_or_a_spec_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SpecError):
        load(path)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_spec_or_a_spec_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(data)
    with pytest.raises(SpecError):
        load(path)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(RunSpec.model_fields)), plain)
def test_any_value_of_a_field_is_taken_or_blamed_on_that_field(tmp_path_factory, field, value):
    path = tmp_path_factory.getbasetemp() / "value.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(GOOD), field: value}), encoding="utf-8")
    message = complaint(path)
    assert message is None or f": {field}" in message or "stands twice" in message


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("rounds=5", "rounds", 5),
        ("model.params.layers=[8, 4]", "model.params", {"layers": [8, 4]}),
        ("model.params.lr=0.1", "model.params", {"layers": [16], "lr": 0.1}),
        ("split.seed=7", "split.seed", 7),
        ("strategy.params.mu=0.5", "strategy.params", {"mu": 0.5}),
        ("silos=[a]", "silo_names", ("a",)),
        ("silos.0=aa", "silo_names", ("aa", "cleveland")),
        ("name=a=b", None, "--set name: name"),
        ("dataset.params.file=a=b", "dataset.params", {"file": "a=b"}),
    ],
)
def test_settings_lie_over_the_file(tmp_path, setting, path, value):
    file = write(tmp_path, GOOD)
    if path is None:
        assert refused(file, setting).message.startswith(value)
        return
    found = load(file, [setting])[0]
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


def test_a_later_setting_lies_over_an_earlier_one(tmp_path):
    assert load(write(tmp_path, GOOD), ["rounds=5", "rounds=6"])[0].rounds == 6


def test_a_setting_can_give_what_the_file_lacks(tmp_path):
    path = write(tmp_path, changed("strategy:\n  name: fedavg\n", ""))
    assert load(path, ["strategy.name=fedprox"])[0].strategy.name == "fedprox"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rounds=0", "--set rounds: rounds: must be greater"),
        ("split.test=2", "--set split.test: split.test: "),
        ("split={test: 2}", "--set split: split.test: "),
        ("model.nme=x", "--set model.nme: model.nme: unknown field"),
        ("strateg.name=x", "--set strateg.name: strateg: unknown field"),
        ("silos.1=A", "--set silos.1: silos.1: "),
        ("rounds", "--set rounds: is not path=value"),
        ("=5", "--set =5: is not path=value"),
        ("rounds=[1", "--set rounds=[1: value is not YAML"),
        ("rounds=2001-13-45", "--set rounds=2001-13-45: value is not YAML"),
        ("rounds=!!int ''", "--set rounds=!!int '': value is not YAML"),
        ("rounds.x=1", "--set rounds.x=1: 'rounds.x' leads nowhere"),
        ("rounds.x.y=1", "--set rounds.x.y=1: 'x' leads nowhere"),
        ("silos.2=a", "--set silos.2=a: 'silos.2' leads nowhere"),
        ("silos.x.name=a", "--set silos.x.name=a: 'x' leads nowhere"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, setting, message):
    assert refused(write(tmp_path, GOOD), setting).message.startswith(message)


@given(st.text(max_size=30))
def test_any_setting_is_taken_or_a_spec_error(tmp_path_factory, setting):
    path = tmp_path_factory.getbasetemp() / "setting.yaml"
    path.write_text(GOOD)
    for text in (setting, "rounds=" + setting, setting + "=1"):
        message = complaint(path, text)
        assert message is None or "--set" in message


def test_equal_specs_have_one_json(tmp_path):
    one = load(write(tmp_path, GOOD))[0]
    fields = yaml.safe_load(GOOD)
    two = RunSpec.model_validate(dict(reversed(fields.items())))
    assert as_json(one) == as_json(two)
    assert RunSpec.model_validate_json(as_json(one)) == one
    other = RunSpec.model_validate({**fields, "seed": 1})
    assert as_json(other) != as_json(one)


def test_the_json_schema_describes_every_field_and_its_bounds():
    fields = schema()["properties"]
    assert fields.keys() == RunSpec.model_fields.keys()
    assert (fields["rounds"]["minimum"], fields["rounds"]["maximum"]) == (1, 100_000)
    assert schema()["additionalProperties"] is False


@pytest.mark.parametrize(
    ("old", "new", "problem", "remedy"),
    [
        ("[hungary, cleveland]", "hungary", "silos: must be a list", "`silos: [north, south]`"),
        ("[hungary, cleveland]", "[]", "silos: give at least one silo", "`silos: [north, south]`"),
        ("[hungary, cleveland]", "[no]", "silos.0: must be a silo's name", "quote"),
        ("[hungary, cleveland]", "[7]", "silos.0: must be a silo's name", "`silos: [north"),
        ("[hungary, cleveland]", "[{name: no}]", "silos.0.name: must be text", "quote"),
        ("[hungary, cleveland]", "[{name: 7}]", "silos.0.name: must be text", '"7"'),
        ("{name: heart-disease}", "csv", "dataset: must be a mapping", "{name: heart-disease}`"),
        ("{name: heart-disease}", "[csv]", "dataset: must be a mapping", "{name: heart-disease}`"),
        ("dataset: {name: heart-disease}\n", "", "dataset: is missing", "{name: heart-disease}`"),
        ("rounds: 20", "rounds: 2.5", "rounds: must be a whole number", "`rounds: 20`"),
        ("rounds: 20", "rounds: .nan", "rounds: must be a finite number", "`rounds: 20`"),
        ("  test: 0.34", "  test: half", "split.test: must be a number", "`test: 0.34`"),
        ("name: heart\n", "name: 7\n", "name: must be text", 'in quotes: "7"'),
        ("name: mlp", "name: ''", "model.name: is too short", "`fl spec schema`"),
    ],
)
def test_a_wrong_field_is_told_in_plain_words(tmp_path, old, new, problem, remedy):
    error = refused(write(tmp_path, changed(old, new)))
    assert f": {problem}" in error.message
    assert remedy in error.remedy
    assert "Input should" not in error.message


@pytest.mark.parametrize("word", ["yes", "true", "off"])
@pytest.mark.parametrize("field", ["rounds", "seed", "max_state_bytes"])
def test_a_boolean_is_no_number(tmp_path, field, word):
    fields = {name: value for name, value in yaml.safe_load(GOOD).items() if name != field}
    path = write(tmp_path, yaml.safe_dump(fields) + f"{field}: {word}\n")
    assert f": {field}: must be a whole number (value " in refused(path).message


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path):
    spec, _ = load(write(tmp_path, changed("0.34", "25e-2")))
    assert spec.split.test == 0.25


def test_a_wrong_seed_of_the_command_line_is_named_by_its_option(tmp_path):
    path = write(tmp_path, GOOD)
    for settings in ([], ["seed=5"]):
        with pytest.raises(SpecError) as caught:
            load(path, settings, seed=-1)
        assert caught.value.message.startswith("--seed: must be greater than or equal to 0")
    assert load(path, ["seed=5"], seed=6)[0].seed == 6


def test_a_silo_keeps_its_place_whichever_silos_are_wanted(tmp_path):
    path = write(tmp_path, changed("[hungary, cleveland]", "\n- hungary\n- {name: b,\n   data: c}"))
    _, source = load(path)
    assert source.silo("b") == f"{path}:5: silos.1"
    assert source.silo("b", "data") == f"{path}:6: silos.1.data"
    assert source.silo("stranger") == f"{path}:3: silos"


@pytest.mark.parametrize("name", ["aggregator", "pooled"])
def test_a_silo_cannot_have_the_name_of_something_else(tmp_path, name):
    error = refused(write(tmp_path, changed("hungary", name)))
    assert "something else" in error.message
