"""The scanners find what is wrong, and nothing unexplained in what the stacks make."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra import stacks
from tests.infra.recording import Recording

from . import checkov, made, parliament
from .environment import needed
from .skips import Explained

pytestmark = needed


@pytest.fixture
def recorded(recording: Recording) -> dict[str, Recording]:
    """What every stack makes."""
    return {"local": recording} | {stack: stacks.recorded(stack) for stack in stacks.AWS}


def _checks(recording: Recording, folder: Path) -> set[str]:
    """The checks that fail."""
    return {one.check for one in checkov.scan(recording, folder).failures}


# Of all stacks in one test: a skip is stale when none of them needs it.
@pytest.mark.slow
def test_checkov_finds_nothing_unexplained(recorded: dict[str, Recording], tmp_path: Path):
    skips = Explained(checkov.SKIPS)
    found = []
    for stack, recording in recorded.items():
        (tmp_path / stack).mkdir()
        verdict = checkov.scan(recording, tmp_path / stack)
        assert verdict.passed
        print(f"{stack}: {verdict.passed} passed, {len(verdict.failures)} failed")
        found += [f"{stack}: {one}" for one in verdict.unexplained(stack, skips)]
    assert not found, "\n".join(["not explained in checkov.SKIPS:", *found])
    assert not skips.stale


def test_parliament_finds_nothing_unexplained(recorded: dict[str, Recording], tmp_path: Path):
    skips = Explained(parliament.SKIPS)
    found = []
    for stack, recording in recorded.items():
        count, findings = parliament.lint(recording, tmp_path)
        print(f"{stack}: {count} policies, {len(findings)} findings")
        found += [f"{stack}: {one}" for one in parliament.unexplained(stack, findings, skips)]
    assert not found, "\n".join(["not explained in parliament.SKIPS:", *found])
    assert not skips.stale


def test_checkov_sees_what_is_wrong(tmp_path: Path):
    assert _checks(made.stack(good=False), tmp_path) >= {
        # The bucket: no block of public access, versions, key, access logs or lifecycle.
        *("CKV2_AWS_6", "CKV_AWS_21", "CKV_AWS_145", "CKV_AWS_18", "CKV2_AWS_61"),
        # A block that blocks nothing, and a key that does not rotate.
        *("CKV_AWS_53", "CKV_AWS_55", "CKV_AWS_56", "CKV_AWS_7"),
        # The network: SSH from everywhere, a rule without a word, a group that nothing has, no flow
        # log, an open default group.
        *("CKV_AWS_24", "CKV_AWS_23", "CKV2_AWS_5", "CKV2_AWS_11", "CKV2_AWS_12"),
        # The cluster: no logs, all addresses, a public endpoint, no key, an old version.
        *("CKV_AWS_37", "CKV_AWS_38", "CKV_AWS_39", "CKV_AWS_58", "CKV_AWS_339"),
        # A topic, a repository, a log group and a disk without a key; no scan, mutable tags, logs
        # for ever.
        *("CKV_AWS_26", "CKV_AWS_136", "CKV_AWS_158", "CKV_AWS_8"),
        *("CKV_AWS_163", "CKV_AWS_51", "CKV_AWS_66"),
        # Policies for everybody, of a topic, a repository, a key and a bucket; one that allows all.
        *("CKV_AWS_169", "CKV_AWS_32", "CKV_AWS_33", "CKV_AWS_70", "CKV_AWS_62", "CKV_AWS_355"),
        # A load balancer that may be deleted, an endpoint service that accepts whoever asks, public
        # addresses, the old metadata service.
        *("CKV_AWS_150", "CKV_AWS_123", "CKV_AWS_130", "CKV_AWS_88", "CKV_AWS_79"),
        # The pod: privileged, root, with a writable root, all capabilities and a token.
        *("CKV_K8S_16", "CKV_K8S_23", "CKV_K8S_22", "CKV_K8S_37", "CKV_K8S_38"),
    }


def test_checkov_sees_what_is_right(tmp_path: Path):
    assert _checks(made.stack(good=True), tmp_path) == {
        # What remains is a choice: events of a bucket, and a copy in another Region.
        *("CKV2_AWS_62", "CKV_AWS_144"),
        # A pod without probes, and without a network policy.
        *("CKV_K8S_8", "CKV_K8S_9", "CKV2_K8S_6"),
    }


def test_parliament_sees_what_is_wrong_and_nothing_else(tmp_path: Path):
    count, findings = parliament.lint(made.policies(), tmp_path)
    assert count == 6
    role, key = "aws_iam_role_policy.wrong policy", "aws_kms_key_policy.wrong policy"
    trial = "sagemaker:CreateTrial arn:*:sagemaker:*:*:experiment-trial/*"
    assert [(one.issue, one.policy, one.about) for one in findings] == [
        ("PERMISSIONS_MANAGEMENT_ACTIONS", role, "iam:createpolicyversion"),
        ("PRIVILEGE_ESCALATION", role, "iam:createpolicyversion"),
        ("RESOURCE_MISMATCH", role, trial),
        ("RESOURCE_STAR", role, "s3:GetObject"),
        ("UNKNOWN_ACTION", role, "Unknown action s3:GetObjekt"),
        ("UNKNOWN_ACTION", key, "Unknown action kms:Decript"),
        ("UNKNOWN_PRINCIPAL", key, "somebody"),
    ]
