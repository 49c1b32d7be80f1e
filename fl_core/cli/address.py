"""``HOST:PORT`` on the command line."""

from __future__ import annotations

import re

import click

_ADDRESS = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")


class Address(click.ParamType):
    """Gives host and port."""

    name = "HOST:PORT"

    def convert(
        self,
        value: str | tuple[str, int],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, int]:
        """Take ``host:port`` apart; an IPv6 host stands in brackets."""
        if isinstance(value, tuple):
            return value
        match = _ADDRESS.fullmatch(value)
        if match is None or int(match[2]) > 65535:
            self.fail(f"{value!r:.300} is not HOST:PORT, such as 127.0.0.1:8440", param, ctx)
        return match[1], int(match[2])
