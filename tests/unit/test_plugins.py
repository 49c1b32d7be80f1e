"""Plugins, as distributions on disk: discovery, allow-list, provenance, what fails and how."""

import importlib
import re
import sys
import textwrap
from pathlib import Path

import pytest

from fl_core.errors import DataError, PluginError
from fl_core.plugins import Plugins, load

STRATEGY = """
from fl_core.hookspecs import hookimpl
from fl_core.strategies.fedavg import FedAvg

class Mine(FedAvg):
    name = {name!r}

@hookimpl
def register_strategies(register):
    register(Mine)
"""


MODEL = """
from fl_core.hookspecs import hookimpl
from fl_core.model import Model, ModelParams

class Mine(Model):
    name = "mine"
    {attributes}

@hookimpl
def register_models(register):
    register(Mine)
"""


class Site:
    """A folder of made-up distributions on ``sys.path``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = f"made_up_{abs(hash(folder)):x}"

    def install(self, distribution: str, code: str, version: str = "1.2", point: str = "") -> str:
        """Put a distribution with one plugin there; gives the module's name."""
        normal = re.sub("[-.]", "_", distribution.lower())
        module = f"{self._prefix}_{normal}"
        (self._folder / f"{module}.py").write_text(textwrap.dedent(code))
        info = self._folder / f"{normal}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(
            f"[fl_core]\n{point or distribution.lower()} = {module}\n"
        )
        importlib.invalidate_caches()
        return module


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FL_PLUGINS", "")
    return Site(tmp_path)


@pytest.fixture
def allow(monkeypatch):
    return lambda names: monkeypatch.setenv("FL_PLUGINS", names)


def of(plugins: Plugins, distribution: str):
    return next(p for p in plugins.plugins if p.distribution == distribution)


def test_what_is_built_in_needs_no_installed_plugin(site):
    plugins = load()
    assert {"bagging", "cyclic", "fedavg", "fedprox"} <= plugins.strategies.keys()
    assert sorted(plugins.datasets) == ["csv", "heart-disease"]
    assert "sagemaker" in plugins.trackers
    assert plugins.models == {}
    assert {(p.distribution, p.error) for p in plugins.plugins} == {("fl-core", None)}
    assert [p.name for p in plugins.plugins] == ["strategies", "datasets", "tracking"]


def test_a_plugin_is_found_by_entry_point_with_its_provenance(site, allow):
    site.install("Their-Plugin", STRATEGY.format(name="mine"), version="3.4", point="theirs")
    allow("Their-Plugin")
    plugins = load()
    plugin = of(plugins, "Their-Plugin")
    assert (plugin.name, plugin.version, plugin.error) == ("theirs", "3.4", None)
    assert (plugin.hooks, plugin.strategies) == (["register_strategies"], ["mine"])
    assert plugins.strategy("mine").name == "mine"
    assert plugins.owner("strategies", "mine") is plugin
    assert plugins.owner("strategies", "fedavg").distribution == "fl-core"


def test_without_an_allow_list_everything_installed_is_loaded_in_order(site, monkeypatch):
    site.install("zz-last", STRATEGY.format(name="zz"))
    site.install("aa-first", STRATEGY.format(name="aa"))
    monkeypatch.delenv("FL_PLUGINS")
    names = [p.distribution for p in load().plugins]
    assert names[:3] == ["fl-core"] * 3
    assert names[3:] == sorted(names[3:])
    assert {"aa-first", "zz-last"} <= set(names)


def test_the_allow_list_keeps_others_from_running(site, allow, tmp_path):
    site.install("wanted", STRATEGY.format(name="wanted"))
    site.install("unwanted", f"open({str(tmp_path / 'ran')!r}, 'w')")
    allow("wanted")
    plugins = load()
    assert "unwanted" not in {p.distribution for p in plugins.plugins}
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "spelling", ["their-plugin", "Their_Plugin", " THEIR.plugin ,", ",their--plugin"]
)
def test_the_allow_list_compares_names_as_pypi_does(site, allow, spelling):
    site.install("Their.Plugin", STRATEGY.format(name="mine"))
    allow(spelling)
    assert "mine" in load().strategies


def test_the_allow_list_names_what_is_not_installed(site, allow):
    site.install("wanted", STRATEGY.format(name="mine"))
    allow("wanted,absent,gone")
    with pytest.raises(PluginError, match="FL_PLUGINS names absent, gone, which") as caught:
        load()
    assert "wanted" in caught.value.remedy


def test_two_plugins_with_one_name_are_refused_with_both_distributions(site, allow):
    site.install("one-dist", STRATEGY.format(name="same"))
    site.install("two-dist", STRATEGY.format(name="same"))
    allow("one-dist,two-dist")
    plugins = load()
    with pytest.raises(PluginError) as caught:
        plugins.strategy("same")
    assert caught.value.message == ("strategy 'same' is registered by one-dist and by two-dist")
    assert "FL_PLUGINS" in caught.value.remedy
    assert of(plugins, "one-dist").error == of(plugins, "two-dist").error == caught.value.message
    assert plugins.strategy("fedavg").name == "fedavg"


def test_of_three_plugins_with_one_name_all_are_named(site, allow):
    for name in ("a-dist", "b-dist", "c-dist"):
        site.install(name, STRATEGY.format(name="same"))
    allow("a-dist,b-dist,c-dist")
    with pytest.raises(PluginError, match="by a-dist and by b-dist and by c-dist"):
        load().strategy("same")


def test_a_plugin_cannot_take_the_place_of_a_built_in_strategy(site, allow):
    site.install("impostor", STRATEGY.format(name="fedavg"))
    allow("impostor")
    with pytest.raises(PluginError, match=r"'fedavg' .* fl-core and by impostor"):
        load().strategy("fedavg")


def test_a_model_and_a_strategy_may_share_a_name(site, allow):
    site.install(
        "sharing",
        STRATEGY.format(name="same")
        + """
from fl_core.model import Model, ModelParams

class Same(Model):
    name = "same"
    Params = ModelParams
    strategies = ("fedavg",)

@hookimpl
def register_models(register):
    register(Same)
""",
    )
    allow("sharing")
    plugin = of(load(), "sharing")
    assert (plugin.models, plugin.strategies, plugin.error) == (["same"], ["same"], None)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import no_such_library_here", "ModuleNotFoundError: No module named 'no_such"),
        ("raise ValueError('broken at import')", "ValueError: broken at import"),
        ("def broken(:", "SyntaxError"),
        (
            "from fl_core.hookspecs import hookimpl\n@hookimpl\ndef register_models(register):\n"
            "    raise RuntimeError('broken hook')",
            "RuntimeError: broken hook",
        ),
        (
            "from fl_core.hookspecs import hookimpl\n@hookimpl\ndef before_round(run, round): ...",
            "PluginValidationError",
        ),
        (
            "from fl_core.hookspecs import hookimpl\n@hookimpl\ndef register_models(register):\n"
            "    register(3)",
            "registered 3 in models: register a subclass of Model",
        ),
        (
            "from fl_core.hookspecs import hookimpl\n@hookimpl\ndef register_models(register):\n"
            "    from fl_core.strategies.fedavg import FedAvg\n    register(FedAvg)",
            "register a subclass of Model",
        ),
        (STRATEGY.format(name="Not A Name"), "registered the name 'Not A Name'"),
        (STRATEGY.format(name=3), "registered the name 3"),
        ("import sys\nsys.exit('no')", "SystemExit: no"),
        (
            "from fl_core.hookspecs import hookimpl\n@hookimpl\ndef befor_round(run_id): ...",
            "befor_round",
        ),
        (MODEL.format(attributes="Params = ModelParams"), "names no strategy"),
        (MODEL.format(attributes='strategies = ("fedavg",)'), "has no Params"),
    ],
)
def test_a_plugin_that_fails_is_named_and_harms_no_other(site, allow, code, error):
    site.install("broken", code)
    site.install("sound", STRATEGY.format(name="sound"))
    allow("broken,sound")
    plugins = load()
    assert error in of(plugins, "broken").error
    assert of(plugins, "broken").models == []
    assert plugins.strategy("sound").name == "sound"
    with pytest.raises(PluginError, match="unknown model 'theirs'") as caught:
        plugins.model("theirs")
    assert "plugins that failed to load: broken (broken): " in caught.value.message
    assert error in caught.value.message


def test_the_error_of_a_plugin_names_file_and_line(site, allow):
    module = site.install("broken", "\n\nraise ValueError('here')")
    allow("broken")
    assert f"{module}.py:3)" in of(load(), "broken").error


def test_a_wrong_argument_is_named_in_the_error(site, allow):
    code = """
    from fl_core.hookspecs import hookimpl
    @hookimpl
    def before_fit(run_id, wrong_name): ...
    """
    site.install("broken", code)
    allow("broken")
    assert "wrong_name" in of(load(), "broken").error


def test_no_hook_of_a_plugin_that_was_refused_is_called(site, allow):
    """Neither those that pluggy took before the bad one, nor those after it."""
    code = """
    from fl_core.hookspecs import hookimpl
    @hookimpl
    def after_round(run_id, round, metrics): raise ValueError("called")
    @hookimpl
    def before_fit(run_id, wrong_name): ...
    @hookimpl
    def before_round(run_id, round): raise ValueError("called")
    """
    site.install("broken", code)
    allow("broken")
    plugins = load()
    plugins.call("before_round", run_id="r", round=1)
    plugins.call("after_round", run_id="r", round=1, metrics={})


def test_unknown_names_get_a_suggestion(site):
    with pytest.raises(PluginError, match="unknown strategy 'fedvag'") as caught:
        load().strategy("fedvag")
    assert "did you mean 'fedavg'?" in caught.value.remedy
    assert "fl plugins" in caught.value.remedy
    with pytest.raises(PluginError, match="unknown dataset 'heart'"):
        load().dataset("heart")


HOOK = """
from fl_core.errors import DataError
from fl_core.hookspecs import hookimpl

calls = []

@hookimpl
def before_round(round):
    calls.append(round)
    if round == 2:
        raise KeyError("no such key")
    if round == 3:
        raise DataError("message", "remedy")
"""


def test_lifecycle_hooks_are_called_with_the_arguments_that_they_name(site, allow):
    module = site.install("hooked", HOOK)
    allow("hooked")
    plugins = load()
    assert of(plugins, "hooked").hooks == ["before_round"]
    plugins.call("before_round", run_id="r", round=1)
    assert importlib.import_module(module).calls == [1]


def test_what_a_lifecycle_hook_raises_is_named_with_its_place(site, allow):
    module = site.install("hooked", HOOK)
    allow("hooked")
    with pytest.raises(PluginError) as caught:
        load().call("before_round", run_id="r", round=2)
    assert caught.value.message.startswith("hook before_round raised KeyError: 'no such key' (")
    assert f"{module}.py:11)" in caught.value.message
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_of_ours_passes_a_hook_unchanged(site, allow):
    site.install("hooked", HOOK)
    allow("hooked")
    with pytest.raises(DataError, match="message"):
        load().call("before_round", run_id="r", round=3)


def test_hooks_of_several_plugins_run_in_the_order_of_their_distributions(site, allow):
    code = """
    import sys
    from fl_core.hookspecs import hookimpl
    @hookimpl
    def before_round(round):
        sys.modules.setdefault("order_of_hooks", []).append({name!r})
    """
    for name in ("ccc", "aaa", "bbb"):
        site.install(name, code.format(name=name))
    allow("aaa,bbb,ccc")
    try:
        load().call("before_round", run_id="r", round=1)
        assert sys.modules["order_of_hooks"] == ["aaa", "bbb", "ccc"]
    finally:
        sys.modules.pop("order_of_hooks", None)
