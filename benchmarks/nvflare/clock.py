"""Notes when each round's state stands, at the server."""

# NVFlare is in an environment of its own.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import time
from pathlib import Path

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType


class Clock(FLComponent):
    """Writes ``times.json`` in ``folder``, with the first values of the last state."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self.times: list[float] = []

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """A state was aggregated."""
        if event_type != AppEventType.AFTER_SHAREABLE_TO_LEARNABLE:
            return
        self.times.append(time.time())
        weights = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]
        found = {"aggregated": self.times, "head": weights["numpy_key"][:8].tolist()}
        (Path(self.folder) / "times.json").write_text(json.dumps(found), encoding="utf-8")
