"""Keys are the party's own, and no service may use them for somebody else."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from infra.keys import Key

from . import aws, iam
from .recording import Recording, record

NORTH, OTHER = aws.IDS["north"], "999999999999"
LOGS, ALARMS = f"logs.{aws.REGION}.amazonaws.com", "cloudwatch.amazonaws.com"
USE = ["kms:Decrypt", "kms:GenerateDataKey"]


def made(preview: bool = False, **given: Any) -> Recording:
    """One key."""

    def program() -> None:
        key = Key("logs", aws.account(), pulumi.ResourceOptions(), **{"protect": False, **given})
        pulumi.export("arn", key.arn)
        pulumi.export("id", key.id)

    return record({}, program=program, preview=preview)


def key_of(recording: Recording) -> dict[str, Any]:
    """The key's properties."""
    return recording.of("kms/key:Key").properties


@pytest.mark.parametrize(("protect", "days"), [(True, 30), (False, 7)])
def test_a_key_is_rotated_and_can_be_had_back(protect: bool, days: int):
    recording = made(protect=protect)
    assert key_of(recording)["enableKeyRotation"] is True
    assert key_of(recording)["deletionWindowInDays"] == days
    assert recording.of("kms/key:Key").protect is protect


def test_people_know_a_key_by_its_alias():
    recording = made()
    assert recording.of("kms/alias:Alias").properties == {"targetKeyId": "north-logs-key"}
    assert recording.outputs["id"] == "north-logs-key"
    assert recording.outputs["arn"].endswith("key/north-logs")


def test_the_accounts_identity_policies_decide():
    policy = key_of(made())["policy"]
    assert [*iam.statements(policy)] == ["AsIdentityPoliciesSay"]
    root = f"arn:aws:iam::{NORTH}:root"
    assert iam.decision(policy, "kms:PutKeyPolicy", principal=root) == "Allow"
    assert iam.decision(policy, "kms:Decrypt", principal=f"arn:aws:iam::{OTHER}:root") == ""
    assert iam.decision(policy, "kms:Decrypt", principal=LOGS) == ""


@pytest.mark.parametrize("action", [*USE, "kms:Encrypt", "kms:ReEncryptTo"])
def test_logs_are_encrypted_for_the_partys_own_groups_only(action: str):
    policy = key_of(made(services=[LOGS]))["policy"]

    def decided(account: str, region: str = aws.REGION, kind: str = "log-group") -> str:
        group = f"arn:aws:logs:{region}:{account}:{kind}:/flow"
        context = {"kms:EncryptionContext:aws:logs:arn": group}
        return iam.decision(policy, action, context=context, principal=LOGS)

    assert decided(NORTH) == "Allow"
    assert decided(OTHER) == decided(NORTH, "us-east-1") == decided(NORTH, kind="destination") == ""
    assert iam.decision(policy, action, principal=LOGS) == ""


def test_alarms_use_the_key_for_the_partys_own_topics_only():
    policy = key_of(made(services=[LOGS, ALARMS]))["policy"]
    for action in USE:
        for account, expected in ((NORTH, "Allow"), (OTHER, "")):
            context = {"aws:SourceAccount": account}
            assert iam.decision(policy, action, context=context, principal=ALARMS) == expected
    context = {"aws:SourceAccount": NORTH}
    assert iam.decision(policy, "kms:ScheduleKeyDeletion", context=context, principal=ALARMS) == ""
    assert iam.decision(policy, "kms:Decrypt", principal=ALARMS) == ""


def test_further_statements_stand_in_the_policy():
    more = {"Sid": "More", "Effect": "Deny", "Principal": "*", "Action": "kms:Sign"}
    assert iam.statements(key_of(made(statements=[more]))["policy"])["More"] == more


def test_a_key_may_be_in_another_region():
    recording = made(region="us-east-1")
    assert key_of(recording)["region"] == "us-east-1"
    assert recording.of("kms/alias:Alias").properties["region"] == "us-east-1"


@pytest.mark.parametrize("preview", [False, True])
def test_all_is_made_by_the_partys_provider(preview: bool):
    made_by = {one.provider for one in made(preview).resources.values() if "aws:kms" in one.kind}
    assert len(made_by) == 1
    assert made_by.pop().endswith("::north-aws")
