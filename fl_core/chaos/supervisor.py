"""Plays a schedule on the role processes of a run."""

from __future__ import annotations

import heapq
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

from fl_core import local
from fl_core.chaos.proxy import Proxy
from fl_core.chaos.schedule import AGGREGATOR, Fault, Schedule
from fl_core.errors import FlError, Interrupted, from_dict
from fl_core.launch import RoleProcess
from fl_core.role import RoleConfig
from fl_core.spec import RunSpec

SLACK_SECONDS = 40.0
"""How much longer than its deadline a run may be silent: roles start, and take their leave."""
WAITS = 2
"""Deadlines that pass in a row, after the last fault, until a run that waits is ended."""
_starting = threading.Lock()


class Chaos(local.Supervisor):
    """Does to one run what the schedule says, and keeps in mind what was done."""

    def __init__(self, schedule: Schedule, spec: RunSpec, on_event: local.OnEvent) -> None:
        self.proxy = Proxy()
        self.hit: list[Fault] = []
        """The faults that have happened."""
        self.silent = self.waited = False
        """Why the run was ended from here, if it was."""
        self.came: set[str] = set()
        """Silos that have joined."""
        self.known: list[str] = []
        """The silos whose feature sums the scaling is made of."""
        self.last_round: int | None = None
        """The round whose state the model is, where it is not the last one."""
        self.error: FlError | None = None
        """What the aggregator failed with."""
        self._spec = spec
        self._on_event = on_event
        self._timed = [fault for fault in schedule.faults if fault.round is None]
        self._by_round = [fault for fault in schedule.faults if fault.round is not None]
        self._roles: dict[str, RoleProcess] = {}
        self._configs: dict[str, RoleConfig] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._back: dict[str, float | None] = {}
        """Of roles that were killed from here: when they come back."""
        self._stopped: set[str] = set()
        self._wanted: list[str] = []
        self._waits = 0
        self._begun_once = False
        pauses = [max(fault.back or 0.0, fault.by or 0.0, fault.at) for fault in schedule.faults]
        self._longest_silence = spec.quorum.deadline + max(pauses, default=0.0) + SLACK_SECONDS
        self._heard = time.monotonic()

    # What the run asks of it

    def start(self, config: RoleConfig, context: ForkServerContext) -> RoleProcess:
        """Start a role; a silo reaches the aggregator through the proxy."""
        who = config.silo or AGGREGATOR
        with _starting:  # another run may start a role in another thread
            if config.silo is None:
                role = self.start_aggregator(config, context)
            else:
                port = self.proxy.open(config.silo, config.port)
                role = RoleProcess(replace(config, port=port), context, _wrong_silo)
        self._stopped.discard(who)
        self._roles[who], self._configs[who] = role, config
        return role

    def start_aggregator(self, config: RoleConfig, context: ForkServerContext) -> RoleProcess:
        """Start the aggregator's process."""
        return RoleProcess(config, context)

    def back(self, name: str, times: int) -> float | None:
        """As the schedule says; whoever was killed by somebody else comes back at once."""
        return self._back.pop(name, super().back(name, times))

    @property
    def due(self) -> float | None:
        """The next fault, or its end; and when silence has become too long."""
        silence = self._heard + self._longest_silence
        return min(self._timers[0][0], silence) if self._timers else silence

    def act(self) -> Sequence[str]:
        """Play what is due. Raises Interrupted where the run has been silent for too long."""
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        if now >= self._heard + self._longest_silence:
            self.silent = True
            raise Interrupted(f"no word for {self._longest_silence:.0f} s", "")
        wanted, self._wanted = self._wanted, []
        return wanted

    # What it hears

    def saw(self, event: dict[str, Any]) -> None:
        """Take in an event of the run. Raises Interrupted where it would wait for ever."""
        self._heard = time.monotonic()
        self._on_event(event)
        match event:
            case {"event": "listening"} if self._timed:
                timed, self._timed = self._timed, []
                for fault in timed:
                    self._at(fault.at, lambda fault=fault: self._play(fault))
            case {"event": "rows", "rows": rows} if not self._begun_once:
                self.known = sorted(rows)
            case {"event": "round", "round": round}:
                self._begun(round)
            case {"event": "joined", "silo": silo}:
                self.came.add(silo)
            case {"event": "stopped_early" | "best", "round": round}:
                self.last_round = round
            case {"event": "extended", "anew": False}:
                self._extended()
            case {"event": "ended", "role": local.AGGREGATOR}:
                self._over()
            case {"event": "failed", "role": local.AGGREGATOR, "error": error}:
                self.error = from_dict(error)
                self._over()
            case _:
                pass

    def _begun(self, round: int) -> None:
        self._begun_once = True
        self._waits = 0
        due = [fault for fault in self._by_round if fault.round == round]
        self._by_round = [fault for fault in self._by_round if fault.round != round]
        for fault in due:
            self._at(fault.at, lambda fault=fault: self._play(fault))

    def _over(self) -> None:
        for who in self._stopped:  # they would be waited for, and never end
            self._signal(who, signal.SIGKILL)

    def _extended(self) -> None:
        """A run that waits for silos may do so for ever: here, for a few deadlines."""
        self._waits = 0 if self._timers or self._back else self._waits + 1
        if self._waits == WAITS:
            self.waited = True
            raise Interrupted("the run waits for silos, and none is to come", "")

    # Faults

    def _at(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), call))

    def _play(self, fault: Fault) -> None:
        self.hit.append(fault)
        self._tell("fault", fault)
        who, back = fault.who, fault.back
        match fault.what:
            case "kill":
                if self._lives(who):
                    self._back[self._roles[who].name] = back
                    self._signal(who, signal.SIGKILL)
            case "stop":
                self._stop(who, fault)
            case "cut":
                self.proxy.cut(who, float("inf") if back is None else back)
            case "flip":
                self.proxy.flip(who)
            case "delay":
                by = fault.by or 0.0
                self.proxy.delay(who, by)
                if back is not None:
                    self._at(back, lambda: self.proxy.delay(who, -by))
            case "corrupt":
                order = {"how": fault.how, "times": fault.times, "round": fault.round or 0}
                self._roles[who].order(order)
            case "readmit":
                self._roles[AGGREGATOR].order({"order": "readmit", "silo": who})
                if not self._lives(who):
                    self._wanted.append(self._roles[who].name)

    def _stop(self, who: str, fault: Fault) -> None:
        if not self._lives(who) or who in self._stopped:
            return
        role = self._roles[who]
        self._stopped.add(who)
        self._signal(who, signal.SIGSTOP)

        def go_on() -> None:
            if self._roles[who] is role and who in self._stopped:
                self._stopped.discard(who)
                self._signal(who, signal.SIGCONT)
                self._tell("goes_on", fault)

        if fault.back is not None:
            self._at(fault.back, go_on)

    def _lives(self, who: str) -> bool:
        return who in self._roles and not self._roles[who].ended

    def _signal(self, who: str, number: signal.Signals) -> None:
        pid = self._roles[who].pid
        if pid is not None and self._lives(who):
            with suppress(ProcessLookupError):  # it has ended, and its last word is still unread
                os.kill(pid, number)

    def _tell(self, event: str, fault: Fault) -> None:
        told = {name: value for name, value in asdict(fault).items() if value is not None}
        if fault.how is None:
            del told["times"]
        self._on_event({"role": "chaos", "event": event, "fault": told})


def _wrong_silo(config: RoleConfig, parent: Connection) -> None:
    from fl_core.chaos import wrong_silo  # and with it FedML: in a role's process alone

    wrong_silo.main(config, parent)
