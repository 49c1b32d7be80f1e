"""What no system can be faster than: the arrays' bytes over mutual TLS, added up as they come."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from benchmarks import transport
from benchmarks.systems.contract import Measured, Setting, Work
from fl_core.transport.authority import Authority


def run(work: Work, rounds: int, folder: Path) -> Measured:
    """The raw side of benchmarks.transport, which gives a run's median round.

    Its processes do nothing else, so have no start-up.
    """
    case = transport.Case(work.name, 4 * work.values, work.silos, rounds)
    authority = Authority(transport.FEDERATION, dt.timedelta(hours=1))
    figures = transport.measure("raw", case, authority)
    return Measured([figures.seconds], figures.peak_bytes)


SETTINGS = (Setting("floor", "raw gRPC streams, the floor", "mutual TLS 1.3", run),)
