"""``NAME:KEY=VALUE,...`` on the command line: a tracker and its parameters."""

from __future__ import annotations

import click

from fl_core.spec import Choice


class TrackerChoice(click.ParamType):
    """Gives a Choice; whether there is such a tracker is not looked at yet."""

    name = "NAME[:KEY=VALUE,...]"

    def convert(
        self, value: str | Choice, param: click.Parameter | None, ctx: click.Context | None
    ) -> Choice:
        """Take the text apart. Values are text; the tracker's parameters make of it what they are.

        A comma without an equals sign behind it belongs to the value before it.
        """
        if isinstance(value, Choice):
            return value
        name, colon, rest = value.partition(":")
        params: dict[str, str] = {}
        last = ""
        for item in rest.split(",") if colon else []:
            key, equals, text = item.partition("=")
            if equals and key.isidentifier():
                if key in params:
                    self.fail(f"{value!r:.300} gives {key} twice", param, ctx)
                last, params[key] = key, text
            elif last:
                params[last] += f",{item}"
            else:
                self.fail(
                    f"{value!r:.300} is not NAME:KEY=VALUE,KEY=VALUE, such as "
                    "sagemaker:prefix=heart",
                    param,
                    ctx,
                )
        if not name:
            self.fail(f"{value!r:.300} names no tracker", param, ctx)
        return Choice(name=name, params=params)
