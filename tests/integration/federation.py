"""The roles of one run as threads of the test, so that a test can stand between them."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_core import plugins as plugin_loader
from fl_core.job import Job, resolve
from fl_core.role import RoleConfig
from fl_core.spec import RunSpec, SpecSource
from fl_core.tracking.contract import Part
from fl_core.tracking.part import Record
from fl_core.transport.authority import Authority
from fl_core.transport.identity import Identity
from tests.integration.conftest import spec

FEDERATION = "test"
WAIT = 60


class Federation:
    """An aggregator, started at once, and whatever silos the test adds."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        from fl_core.roles import aggregator

        self.spec = RunSpec.model_validate(spec(**changes))
        self.folder = folder
        self.authority = Authority(FEDERATION, valid=dt.timedelta(hours=1))
        self.errors: dict[str, BaseException] = {}
        self._plugins = plugin_loader.load()
        self._threads: list[threading.Thread] = []
        self._listening = threading.Event()
        self.port = 0
        folder.mkdir()
        config = self._config(self.authority.aggregator([]), 0, None)
        self._start(
            "aggregator",
            config,
            lambda record: aggregator.run(config, self.job(), self._plugins, self._tell, record),
        )
        assert self._listening.wait(WAIT)

    def job(self) -> Job:
        """The job, made anew for one role."""
        return resolve(self.spec, SpecSource("run file", {}), self._plugins, self.folder)

    def silo(self, name: str, job: Job | None = None, port: int | None = None) -> None:
        """Start a silo."""
        from fl_core.roles import silo

        config = self._config(self.authority.silo(name), port or self.port, name)
        own = job or self.job()
        self._start(name, config, lambda record: silo.run(config, own, self._plugins, record))

    def join(self) -> dict[str, BaseException]:
        """Wait until every role has ended; gives their errors."""
        for thread in self._threads:
            thread.join(WAIT)
            assert not thread.is_alive()
        return self.errors

    def _config(self, identity: Identity, port: int, silo: str | None) -> RoleConfig:
        folder = self.folder if silo is None else self.folder / "silos" / silo
        folder.mkdir(parents=True, exist_ok=True)
        return RoleConfig(
            "run",
            self.spec,
            self.folder,
            folder,
            FEDERATION,
            identity,
            "127.0.0.1",
            port,
            silo,
        )

    def _tell(self, event: dict[str, Any]) -> None:
        if event["event"] == "listening":
            self.port = event["port"]
            self._listening.set()

    def _start(self, name: str, config: RoleConfig, role: Callable[[Record], None]) -> None:
        def body() -> None:
            try:
                with Record(config.folder, Part("run", config.silo, "", 0.0, {}), ()) as record:
                    role(record)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.errors[name] = error

        thread = threading.Thread(target=body, name=name)
        thread.start()
        self._threads.append(thread)
