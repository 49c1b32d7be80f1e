"""What a ``pulumi`` command left."""

from __future__ import annotations

import re
from dataclasses import dataclass

SUMMARY = re.compile(r"^    (?:\d+ changes\. )?[-+~]* ?(\d+) ((?:to )?[a-z]+)\b", re.M)
VIOLATION = re.compile(r"^ +- \[(\w+)\] +(\S+) +\((\S+): (\S+)\)$", re.M)
ON_PATH = "from $PATH at"


@dataclass(frozen=True)
class Result:
    """What a ``pulumi`` command left."""

    code: int
    out: str
    err: str

    @property
    def changes(self) -> dict[str, int]:
        """The resources by what became, or would become, of them: ``{"created": 3}``."""
        _, found, summary = self.out.rpartition("\nResources:\n")
        return {what: int(count) for count, what in SUMMARY.findall(summary)} if found else {}

    @property
    def violations(self) -> list[tuple[str, str, str, str]]:
        """What a policy pack found: how serious, the policy, the resource's type and its name."""
        return VIOLATION.findall(self.out)

    @property
    def warnings(self) -> list[str]:
        """What was warned of, once each; not that a plugin was found on PATH, as doubles are."""
        lines = map(str.strip, f"{self.out}\n{self.err}".splitlines())
        found = (line for line in lines if line.startswith("warning:") and ON_PATH not in line)
        return list(dict.fromkeys(found))

    @property
    def errors(self) -> list[str]:
        """The lines that begin with ``error:``."""
        lines = map(str.strip, f"{self.out}\n{self.err}".splitlines())
        return [line for line in lines if line.startswith("error:")]
