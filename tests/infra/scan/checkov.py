"""checkov over what a recording would make: AWS resources and Kubernetes objects."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.infra.recording import Recording

from .environment import BIN, variables
from .manifests import manifests
from .plan import plan
from .skips import Explained

_IN_TEMPLATE = (
    "The instance's launch template says it, and checkov does not read one for the other."
)

# By checkov's id, and a pattern of stack and resource where it holds for some only.
SKIPS: Mapping[str, str] = {
    "CKV2_AWS_41 */aws_instance.*-tunnel": _IN_TEMPLATE,
    "CKV2_AWS_62": "Nothing acts on what happens in a bucket, so there is nobody to tell.",
    "CKV_AWS_8 */aws_instance.*-tunnel": _IN_TEMPLATE,
    "CKV_AWS_339": "Its list of supported versions is as old as its release: 1.36 is in support.",
    "CKV_AWS_39 dev/*": "Developers reach the small stack from the addresses that its file names.",
    "CKV_AWS_79 */aws_instance.*-tunnel": _IN_TEMPLATE,
    "CKV_AWS_91 */aws_lb.*-link": "Such a balancer logs TLS listeners only, and this is plain TCP.",
    "CKV_AWS_123": "Only the silos' accounts may ask, so accepting by hand decides nothing more.",
    "CKV_AWS_126 */aws_instance.*-tunnel": "No alarm looks at the host more often.",
    "CKV_AWS_135 */aws_instance.*-tunnel": "Every t4g is optimized for EBS, without being told.",
    "CKV_AWS_144": "A silo's data stays in its Region; versions guard against a wrong deletion.",
    "CKV_AWS_145 */aws_s3_bucket.*-access-logs": "S3 delivers access logs to SSE-S3 buckets only.",
    "CKV_AWS_150 dev/*": "Without protect, as this stack is, everything may be destroyed.",
    "CKV_AWS_150 staging/*": "Without protect, as this stack is, everything may be destroyed.",
    "CKV_AWS_338 dev/*": "Nobody asks after a year what was tried out; its file says how long.",
    "CKV_AWS_338 staging/*": "Nobody asks after a year what was tried out; its file says how long.",
    "CKV_K8S_15 local/*": "What has just been built is in the node, and in no registry to ask.",
    "CKV_K8S_43 local/*": "What has just been built has no digest in a registry.",
}


@dataclass(frozen=True, order=True)
class Failure:
    """A check that a resource does not pass."""

    check: str
    resource: str
    name: str
    """What it wants. Links to explanations are among what checkov would download."""

    def __str__(self) -> str:
        return f"{self.check} {self.resource}: {self.name}"


@dataclass(frozen=True)
class Verdict:
    """How many checks were passed, and the others."""

    passed: int
    failures: tuple[Failure, ...]

    def unexplained(self, stack: str, skips: Explained) -> list[Failure]:
        """The failures that no skip explains. Marks the skips that do explain one as in use."""
        return [
            one for one in self.failures if not skips.explain(one.check, f"{stack}/{one.resource}")
        ]


def scan(recording: Recording, folder: Path) -> Verdict:
    """Judge all of a recording in one process, because most of the time goes into its start."""
    given = folder / "scan"
    given.mkdir()
    resources = plan(recording)
    if resources["planned_values"]["root_module"]["resources"]:
        (given / "plan.json").write_text(json.dumps(resources, indent=1))
    (given / "manifests.yaml").write_text(manifests(recording))
    done = subprocess.run(
        [
            *(BIN / "python", BIN / "checkov"),
            *("--directory", given, "--framework", "terraform_plan", "kubernetes"),
            *("--output", "json", "--quiet", "--compact", "--soft-fail", "--skip-download"),
        ],
        cwd=folder,
        env=variables(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return _verdict(json.loads(done.stdout))


def _verdict(answer: Any) -> Verdict:
    """From one report, or several for several frameworks."""
    reports = answer if isinstance(answer, list) else [answer]
    failures = []
    for report in reports:
        assert not report.get("summary", report)["parsing_errors"], report
        for one in report.get("results", {}).get("failed_checks", ()):
            failures.append(Failure(one["check_id"], one["resource"], one["check_name"]))
    passed = sum(report.get("summary", report)["passed"] for report in reports)
    return Verdict(passed, tuple(sorted(failures)))
