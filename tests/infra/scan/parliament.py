"""parliament over the IAM policies of a recording."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.infra.recording import Recording

from .environment import BIN, variables
from .policies import Attached, Policy, policies
from .skips import Explained

# By parliament's issue, and a pattern of stack, policy (address and property) and what it is about:
# "UNKNOWN_ACTION */aws_iam_role_policy.* policy: *sagemaker:NewAction". What parliament knows is as
# old as its release.
SKIPS: Mapping[str, str] = {
    "MISMATCHED_TYPE */aws_s3_bucket_policy.*: *s3:TlsVersion*": (
        "A TLS version has a point in it, and parliament takes whole numbers only."
    ),
    "MISMATCHED_TYPE_BUT_USABLE */aws_s3_bucket_policy.*": (
        "One key alone is meant, so its ARN is compared as text, without wildcards."
    ),
    "PERMISSIONS_MANAGEMENT_ACTIONS *-cluster-key policy: kms:creategrant": (
        "EBS needs a grant to open a node's disk; the policy allows it to AWS' services only."
    ),
    "RESOURCE_MISMATCH *-flow-logs policy: logs:DescribeLogGroups *": (
        "IAM judges it by log-group:*, of the account and Region, which is no wider than asked for."
    ),
    "RESOURCE_MISMATCH *: sagemaker:Batch[GP][eu]tMetrics *:training-job/[*]": (
        "They are of a trial component or of a training job, and there are no training jobs here."
    ),
    "UNKNOWN_CONDITION_FOR_ACTION */aws_s3_bucket_policy.*: *s3:TlsVersion*": (
        "All of S3 is denied to old TLS, and two of its actions cannot be asked by it."
    ),
}
# A policy on a resource, or on who takes a role, is about that one: "*" is no wildcard there, and
# what its actions are worth is for the identities' policies to limit.
OF_IDENTITIES = {
    "RESOURCE_STAR",
    "RESOURCE_EFFECTIVELY_STAR",
    "CREDENTIALS_EXPOSURE",
    "PERMISSIONS_MANAGEMENT_ACTIONS",
    "PRIVILEGE_ESCALATION",
}


@dataclass(frozen=True, order=True)
class Finding:
    """What parliament says of a policy."""

    issue: str
    policy: str
    title: str
    about: str

    @property
    def place(self) -> str:
        """What a skip's pattern is held against."""
        return f"{self.policy}: {self.about}"

    def __str__(self) -> str:
        return f"{self.issue} {self.place} ({self.title})"


def lint(recording: Recording, folder: Path) -> tuple[int, list[Finding]]:
    """How many policies there are, and what is wrong with them, in one process."""
    given = policies(recording)
    named = {f"{one.where}#{number}": one for number, one in enumerate(given)}
    done = subprocess.run(
        # -W: setuptools warns about what parliament uses. -P: else it would import this very file.
        [BIN / "python", "-W", "ignore", "-P", Path(__file__).with_name("lint_policies.py")],
        input=json.dumps({name: _judged(one) for name, one in named.items()}),
        cwd=folder,
        env=variables(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    findings = {
        Finding(issue, named[name].where, title, about)
        for name, issue, title, about in json.loads(done.stdout)
        if named[name].attached is Attached.IDENTITY or issue not in OF_IDENTITIES
    }
    return len(given), sorted(findings)


def unexplained(stack: str, findings: Iterable[Finding], skips: Explained) -> list[Finding]:
    """Those that no skip explains. Marks the skips that do explain one as in use."""
    return [one for one in findings if not skips.explain(one.issue, f"{stack}/{one.place}")]


def _judged(policy: Policy) -> dict[str, Any]:
    """The policy as an identity's, the only kind that parliament knows."""
    statements = policy.document["Statement"]
    statements = statements if isinstance(statements, list) else [statements]
    if policy.attached is not Attached.IDENTITY:
        statements = [
            one if {"Resource", "NotResource"} & {*one} else one | {"Resource": "*"}
            for one in statements
        ]
    return policy.document | {"Statement": statements}
