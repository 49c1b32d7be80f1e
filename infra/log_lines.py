"""The coordinator's log lines that alarms are made of, as CloudWatch Logs finds them.

A filter pattern knows `*` at either end of a text; that it also does within one is not promised.
Hence several conditions on one line rather than one pattern for it.
"""

from __future__ import annotations

from infra.workload import COORDINATOR

HERE = "silos here: "
"""Each minute followed by the silos whose agents are connected, each in brackets."""
_RUN = ("* INFO run *", "* WARNING run *", "* ERROR run *")
_FAILED = ("*: failed: *", "*: interrupted: *", "*: cannot start: *")
_WANTED = "*: interrupted: stopped by *"
"""An operator has ended the run: nobody needs to be told."""


def seen(namespace: str, silo: str) -> str:
    """The lines that say that a silo's agent is connected."""
    return _lines(namespace, _like(f"*{HERE}*"), _like(f"*[{silo}]*"))


def completed(namespace: str) -> str:
    """The lines that say that a run has come to its end."""
    return _lines(namespace, _like("* INFO run *"), _like("*: completed"))


def failed(namespace: str) -> str:
    """The lines that say that a run has ended otherwise, and not by an operator's wish."""
    return _lines(namespace, _any(_RUN), _any(_FAILED), f'($.log != "{_WANTED}")')


def _lines(namespace: str, *conditions: str) -> str:
    """Lines of the coordinator's container, in the shape that Fluent Bit gives them."""
    where = (
        f'($.kubernetes.namespace_name = "{namespace}")',
        f'($.kubernetes.container_name = "{COORDINATOR}")',
    )
    return f"{{ {' && '.join((*where, *conditions))} }}"


def _any(texts: tuple[str, ...]) -> str:
    return f"({' || '.join(_like(text) for text in texts)})"


def _like(text: str) -> str:
    return f'($.log = "{text}")'
