"""Plugins: discovery by entry point, allow-list, provenance.

``FL_PLUGINS`` (a comma-separated list of distributions) restricts what is loaded: an entry point is
code that runs, so an aggregator should name what it needs.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distribution, entry_points
from types import ModuleType
from typing import Any

import pluggy
from pydantic import BaseModel

import fl_core.datasets
import fl_core.strategies
import fl_core.tracking
from fl_core import hookspecs
from fl_core.dataset import Dataset
from fl_core.errors import FlError, PluginError, RoleError, nearest
from fl_core.model import Model
from fl_core.strategies import Strategy
from fl_core.tracking.contract import Tracker

BUILT_IN = "fl-core"
_WORDS = {
    "models": "model",
    "strategies": "strategy",
    "datasets": "dataset",
    "trackers": "tracker",
}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")


@dataclass
class Plugin:
    """One plugin, loaded or not, and what it offers."""

    name: str
    distribution: str
    version: str
    hooks: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    strategies: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    trackers: list[str] = field(default_factory=list)
    error: str | None = None


class Plugins:
    """What is installed, allowed and loaded. Make one with :func:`load`."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.plugins: list[Plugin] = []
        self.models: dict[str, type[Model]] = {}
        self.strategies: dict[str, type[Strategy]] = {}
        self.datasets: dict[str, type[Dataset]] = {}
        self.trackers: dict[str, type[Tracker]] = {}
        self._owners: dict[tuple[str, str], list[Plugin]] = {}

    def call(self, hook: str, **arguments: Any) -> None:
        """Call a lifecycle hook of every loaded plugin.

        Raises PluginError, naming file and line, for whatever a plugin raises; an FlError as it is.
        """
        try:
            getattr(self.manager.hook, hook)(**arguments)
        except FlError:
            raise
        except Exception as error:
            raise PluginError(
                f"hook {hook} raised {described(error)}",
                "report it to the plugin's author, or leave the plugin out with FL_PLUGINS",
            ) from error

    def add(self, plugin: Plugin, module: ModuleType) -> None:
        """Register a plugin's hooks and what it offers.

        Raises PluginError, with nothing kept, for what a plugin must not do.
        """
        name = f"{plugin.distribution}:{plugin.name}"
        try:
            self.manager.register(module, name=name)
            self.manager.check_pending()
            offers = self._offers(module)
            for kind, offer in offers:
                self._check_offer(plugin, kind, offer)
        except BaseException:
            # A hook that pluggy refuses leaves those before it registered; a module that is
            # registered under another name stays so.
            if self.manager.get_name(module) == name:
                self.manager.unregister(module)
            raise
        callers = self.manager.get_hookcallers(module) or []
        plugin.hooks = sorted(caller.name for caller in callers)
        for kind, offer in offers:
            self._take(plugin, kind, offer)

    def _offers(self, module: ModuleType) -> list[tuple[str, type[Any]]]:
        """What the module's own register hooks offer, as pairs of kind and class."""
        offers: list[tuple[str, type[Any]]] = []
        for kind in _WORDS:
            for implementation in getattr(self.manager.hook, f"register_{kind}").get_hookimpls():
                if implementation.plugin is module:
                    implementation.function(
                        register=lambda offer, kind=kind: offers.append((kind, offer))
                    )
        return offers

    def _check_offer(self, plugin: Plugin, kind: str, offer: type[Any]) -> None:
        base = {
            "models": Model,
            "strategies": Strategy,
            "datasets": Dataset,
            "trackers": Tracker,
        }[kind]
        if not (isinstance(offer, type) and issubclass(offer, base)):
            raise PluginError(
                f"plugin {plugin.name!r} ({plugin.distribution}) registered {offer!r} in {kind}",
                f"register a subclass of {base.__name__}: the class, not an instance",
            )
        name = getattr(offer, "name", None)
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise PluginError(
                f"plugin {plugin.name!r} ({plugin.distribution}) registered the name {name!r}",
                "use lower-case letters, digits and hyphens",
            )
        params = getattr(offer, "Params", None)
        if not (isinstance(params, type) and issubclass(params, BaseModel)):
            raise PluginError(
                f"plugin {plugin.name!r} ({plugin.distribution}): {name!r} has no Params",
                "give the class an attribute Params, a pydantic model",
            )
        if kind == "models" and not getattr(offer, "strategies", ()):
            raise PluginError(
                f"plugin {plugin.name!r} ({plugin.distribution}): model {name!r} names no strategy",
                "give the class an attribute strategies, a tuple of names",
            )

    def _take(self, plugin: Plugin, kind: str, offer: type[Any]) -> None:
        key = (kind, offer.name)
        owners = self._owners.setdefault(key, [])
        owners.append(plugin)
        if len(owners) == 1:
            getattr(self, kind)[offer.name] = offer
            getattr(plugin, kind).append(offer.name)
            return
        # None of them is to win by the order of loading.
        getattr(self, kind).pop(offer.name, None)
        for owner in owners:
            owner.error = self._collision(kind, offer.name)

    def _collision(self, kind: str, name: str) -> str:
        owners = sorted({owner.distribution for owner in self._owners[kind, name]})
        return f"{_WORDS[kind]} {name!r} is registered by {' and by '.join(owners)}"

    def model(self, name: str) -> type[Model]:
        """The model of that name. Raises PluginError when there is none."""
        return self._find("models", name)

    def strategy(self, name: str) -> type[Strategy]:
        """The strategy of that name. Raises PluginError when there is none."""
        return self._find("strategies", name)

    def dataset(self, name: str) -> type[Dataset]:
        """The dataset of that name. Raises PluginError when there is none."""
        return self._find("datasets", name)

    def tracker(self, name: str) -> type[Tracker]:
        """The tracker of that name. Raises PluginError when there is none."""
        return self._find("trackers", name)

    def _find(self, kind: str, name: str) -> Any:
        if len(self._owners.get((kind, name), ())) > 1:
            raise PluginError(
                self._collision(kind, name),
                "uninstall all but one, or name the wanted ones in FL_PLUGINS",
            )
        known = getattr(self, kind)
        if name in known:
            return known[name]
        failed = [f"{p.name} ({p.distribution}): {p.error}" for p in self.plugins if p.error]
        note = f"; plugins that failed to load: {'; '.join(failed)}" if failed else ""
        raise PluginError(
            f"unknown {_WORDS[kind]} {name!r}{note}",
            nearest(name, list(known)) + "; `fl plugins` lists what is installed",
        )

    def owner(self, kind: str, name: str) -> Plugin:
        """The plugin that registered ``name`` in ``kind`` (as :class:`Plugin` has them)."""
        return self._owners[kind, name][0]


def load() -> Plugins:
    """The built-in strategies, datasets and trackers, and every installed and allowed plugin.

    A plugin that fails is kept with its error and fails only the runs that need it. Raises
    PluginError when FL_PLUGINS names a distribution that has no plugin.
    """
    plugins = Plugins()
    version = distribution(BUILT_IN).version
    for module in (fl_core.strategies, fl_core.datasets, fl_core.tracking):
        plugin = Plugin(module.__name__.rpartition(".")[2], BUILT_IN, version)
        plugins.add(plugin, module)
        plugins.plugins.append(plugin)
    allowed = _allowed()
    found = sorted(_installed(), key=lambda pair: (pair[0].metadata["Name"], pair[1].name))
    names = {_normal(dist.metadata["Name"]) for dist, _ in found}
    if allowed is not None and (absent := sorted(allowed - names)):
        raise PluginError(
            f"FL_PLUGINS names {', '.join(absent)}, which offers no plugin here",
            f"installed plugins: {', '.join(sorted(names)) or 'none'}",
        )
    wanted = [
        pair for pair in found if allowed is None or _normal(pair[0].metadata["Name"]) in allowed
    ]
    # Backwards: pluggy calls the hooks of what was registered last first.
    loaded = [_load_one(plugins, dist, point) for dist, point in reversed(wanted)]
    plugins.plugins += reversed(loaded)
    return plugins


def _load_one(plugins: Plugins, dist: Distribution, point: EntryPoint) -> Plugin:
    plugin = Plugin(point.name, dist.metadata["Name"], dist.version)
    try:
        plugins.add(plugin, point.load())
    except FlError as error:
        plugin.error = f"{error.message}: {error.remedy}"
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code: any error is its own
        plugin.error = described(error)
    return plugin


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Turn whatever a plugin's code raises, but an FlError, into a RoleError that names it."""
    try:
        yield
    except FlError:
        raise
    except Exception as error:
        raise RoleError(
            f"{what} raised {described(error)}",
            "report it to the plugin's author; a role's traceback is in its log",
        ) from error


def described(error: BaseException) -> str:
    """What foreign code raised, and where: ``ValueError: text (FILE:LINE)``."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"


def _installed() -> list[tuple[Distribution, EntryPoint]]:
    return [(point.dist, point) for point in entry_points(group=hookspecs.PROJECT) if point.dist]


def _allowed() -> set[str] | None:
    text = os.environ.get("FL_PLUGINS")
    if text is None:
        return None
    return {_normal(name) for name in text.split(",") if name.strip()}


def _normal(name: str) -> str:
    """A distribution's name as PyPA compares it (packaging.python.org, name normalization)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
