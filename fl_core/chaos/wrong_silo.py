"""A silo's process that gives wrong answers when it is told to.

Only ``fl chaos`` starts it. What answers wrongly takes the place of the role's own communication
manager in this one process; the role itself has no way to do so.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import numpy as np

from fl_core import role_process
from fl_core import state as states
from fl_core.buffers import Buffers
from fl_core.errors import RoleError
from fl_core.role import RoleConfig
from fl_core.roles import communication as wire
from fl_core.roles import silo
from fl_core.roles.fedml import Message

_log = logging.getLogger(__name__)
_LARGEST_STATE = 2**31


def main(config: RoleConfig, parent: Connection) -> None:
    """As the role's own; ``parent`` may send orders: ``how``, ``times``, from which ``round``."""
    silo.Communication = WrongCommunication
    threading.Thread(target=_listen, args=(parent,), name="wrong", daemon=True).start()
    role_process.main(config, parent)


def _listen(parent: Connection) -> None:
    while True:
        try:
            WrongCommunication.orders.append(json.loads(parent.recv_bytes()))
        except (EOFError, OSError):  # the parent is gone, and so will this process be
            return


class WrongCommunication(wire.Communication):
    """Sends wrong answers, as often as was ordered."""

    orders: ClassVar[deque[dict[str, Any]]] = deque()

    def send_message(self, msg: Message) -> None:
        """Send the message, or what an order makes of it."""
        kind, params = msg.get_type(), dict(msg.get_params())
        how = None
        if kind in (wire.SUMS, wire.UPDATE, wire.SCORES):
            how = self._how(kind == wire.UPDATE, params.get(wire.ROUND, 0))
        if how is None:
            super().send_message(msg)
            return
        _log.warning("the next answer is wrong: %s", how)
        if how == "raises":
            raise RoleError("raised, as fl chaos wanted it", "nothing: that is what it is for")
        if how == "stale":
            params[wire.ROUND] -= 1
        elif how != "doubled":
            params[wire.ARRAYS] = spoilt(params[wire.ARRAYS], how)
        for _ in range(2 if how == "doubled" else 1):
            super().send_message(wire.message(kind, msg.get_sender_id(), 0, params))

    def _how(self, update: bool, round: int) -> str | None:
        """How this answer is to be wrong, if it is."""
        if not self.orders or round < self.orders[0]["round"]:
            return None
        how = self.orders[0]["how"]
        if how in ("stale", "raises") and not update:
            return None
        self.orders[0]["times"] -= 1
        if not self.orders[0]["times"]:
            self.orders.popleft()
        return how


def spoilt(arrays: states.State | Buffers, how: str) -> bytes:
    """Encoded arrays that are of no use: ``garbage``, ``nan``, or of another ``shape``.

    Where no array is of floating point none can be NaN, and they stay what they are.
    """
    if how == "garbage":
        return b"these are no arrays"
    known = states.decode(bytes(arrays), _LARGEST_STATE) if isinstance(arrays, Buffers) else arrays
    if how == "shape":
        longer = {name: np.append(array, array.dtype.type(0)) for name, array in known.items()}
        return states.encode(longer)
    return states.encode(
        {
            name: np.full_like(array, np.nan) if array.dtype.kind == "f" else array
            for name, array in known.items()
        }
    )
