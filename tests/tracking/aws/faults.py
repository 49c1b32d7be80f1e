"""Faults that a test orders, and the record of all calls."""

from __future__ import annotations

import fnmatch
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from tests.tracking.aws.call import Call

Kind = Literal["throttle", "error", "hang", "lost", "delay", "refuse-first"]
"""throttle: ThrottlingException. error: HTTP 500. hang: accepted and never answered, nor done.
lost: done, and the connection closed without an answer. delay: done after ``seconds``.
refuse-first: of BatchPutMetrics, the first metric is not kept and stands in Errors."""


@dataclass(frozen=True)
class Fault:
    """What happens to some calls."""

    kind: Kind
    operation: str | None = None
    """Such as ``BatchPutMetrics``; None: any."""
    name: str | None = None
    """A pattern (``*-client-berlin*``) that one of the call's names must fit; None: any."""
    times: int | None = None
    """How many calls; None: all from now on."""
    after: int = 0
    """How many calls go unharmed before."""
    each: bool = False
    """``times`` and ``after`` count for each experiment, component or object by itself."""
    retry_after: float | None = None
    """Seconds, in the header Retry-After of a throttle or an error."""
    seconds: float = 0.0
    """How long a delay lasts."""


@dataclass
class _Entry:
    """A call in the record."""

    operation: str
    service: str
    actions: list[str]
    resources: list[str]
    names: Mapping[str, str]
    account: str
    access_key: str
    region: str
    time: float
    status: int | None = None
    """None: it has had no answer."""
    error: str | None = None
    fault: str | None = None


@dataclass
class _Ordered:
    fault: Fault
    seen: Counter[str] = field(default_factory=Counter)


class Faults:
    """Those in force. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered: list[_Ordered] = []
        self._released = threading.Event()

    def order(self, given: Mapping[str, Any]) -> None:
        """Raises ValueError for what is no fault."""
        unknown = set(given) - {one.name for one in fields(Fault)}
        if unknown or given.get("kind") not in get_args(Kind):
            raise ValueError(f"no fault: {dict(given)}")
        with self._lock:
            self._ordered.append(_Ordered(Fault(**given)))

    def meets(self, call: Call) -> tuple[Fault | None, threading.Event]:
        """The fault that this call meets, and what ends its hanging."""
        with self._lock:
            for one in self._ordered:
                if _concerns(one.fault, call):
                    who = "/".join(call.names.values()) if one.fault.each else ""
                    one.seen[who] += 1
                    at = one.seen[who] - one.fault.after
                    if at > 0 and (one.fault.times is None or at <= one.fault.times):
                        return one.fault, self._released
            return None, self._released

    def release(self) -> None:
        """End what hangs, and hang no more."""
        self._drop({"hang"})

    def clear(self) -> None:
        """No faults any more."""
        self._drop(set(get_args(Kind)))

    def _drop(self, kinds: set[str]) -> None:
        with self._lock:
            self._ordered = [one for one in self._ordered if one.fault.kind not in kinds]
            self._released.set()
            self._released = threading.Event()


def _concerns(fault: Fault, call: Call) -> bool:
    if fault.operation not in (None, call.operation):
        return False
    return fault.name is None or any(
        fnmatch.fnmatchcase(name, fault.name) for name in call.names.values()
    )


class Record:
    """All calls, in the order in which they came. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []

    def begin(self, call: Call, account: str) -> _Entry:
        entry = _Entry(
            operation=call.operation,
            service=call.service,
            actions=call.actions,
            resources=call.resources(account),
            names=dict(call.names),
            account=account,
            access_key=call.key,
            region=call.region,
            time=time.time(),
        )
        with self._lock:
            self._entries.append(entry)
        return entry

    def entries(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(one) for one in self._entries]

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
