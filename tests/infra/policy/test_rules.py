"""Every rule is kept by what is right, broken by what is wrong, and unmoved by what is unknown."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.policy.pack import NAME, RULES, STACK_RULES, policies
from infra.policy.rule import Resource, Rule
from infra.policy.values import UNKNOWN
from tests.infra.policy import schema
from tests.infra.policy.case import Case, with_props
from tests.infra.policy.cases import access, accounts, cluster, data, kubernetes, network

FOLDER = Path(__file__).parents[3] / "infra" / "policy"
CASES = [
    *accounts.CASES,
    *network.CASES,
    *cluster.CASES,
    *data.CASES,
    *access.CASES,
    *kubernetes.CASES,
]
ALL = [*RULES, *STACK_RULES]
_NAMES = [f"{case.rule.name}-{i}" for i, case in enumerate(CASES)]
BROKEN = [
    pytest.param(case, stack, id=f"{name}-{label}")
    for name, case in zip(_NAMES, CASES, strict=True)
    for label, stack in case.bad.items()
]
each_case = pytest.mark.parametrize("case", CASES, ids=_NAMES)


def broken(case: Case, stack: tuple[Resource, ...]) -> list[str]:
    """What the case's rule says of the stack."""
    if isinstance(case.rule, Rule):
        return [message for one in stack for message in case.rule.broken_by(one)]
    return [message for _, message in case.rule.broken_by(stack)]


@each_case
def test_what_is_right_keeps_the_rule(case: Case):
    if isinstance(case.rule, Rule):
        assert all(case.rule.concerns(one.kind) for one in case.good)
    assert broken(case, case.good) == []


@pytest.mark.parametrize(("case", "stack"), BROKEN)
def test_what_is_wrong_breaks_the_rule(case: Case, stack: tuple[Resource, ...]):
    messages = broken(case, stack)
    assert messages
    # What is wrong, and after a semicolon what to do.
    assert all("; " in message for message in messages)


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.name)
def test_every_rule_is_broken_by_some_case(rule: Any):
    assert any(case.rule is rule and case.bad for case in CASES)


@each_case
def test_what_is_unknown_breaks_no_rule(case: Case):
    for i, one in enumerate(case.good):
        for props in _less_known(one.props):
            stack = (*case.good[:i], with_props(one, props), *case.good[i + 1 :])
            # Who an unknown name belongs to is told by what it comes from: not recorded here.
            if isinstance(case.rule, Rule) or not _is_about(one.props, props):
                assert broken(case, stack) == [], props


@pytest.mark.parametrize(("case", "stack"), BROKEN)
def test_what_is_unknown_in_what_is_wrong_is_no_error(case: Case, stack: tuple[Resource, ...]):
    for i, one in enumerate(stack):
        for props in _less_known(one.props):
            broken(case, (*stack[:i], with_props(one, props), *stack[i + 1 :]))


def _is_about(props: Mapping[str, Any], less: Mapping[str, Any]) -> bool:
    """Whether it is the name of another resource that is unknown."""
    names = ("bucket", "targetBucket", "vpcId", "metadata")
    return any(props.get(name) != less.get(name) for name in names)


def _less_known(value: Any) -> Iterator[Any]:
    """The value with one thing in it unknown, for every thing."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield {**value, key: UNKNOWN}
            yield from ({**value, key: less} for less in _less_known(item))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield [*value[:i], UNKNOWN, *value[i + 1 :]]
            yield from ([*value[:i], less, *value[i + 1 :]] for less in _less_known(item))


@each_case
def test_properties_are_named_as_pulumi_names_them(case: Case):
    for one in [*case.good, *(one for stack in case.bad.values() for one in stack)]:
        if one.kind in schema.tokens() and one.props:
            assert schema.unknown_names(one.kind, one.props) == []


def test_a_misspelt_property_is_found():
    assert schema.unknown_names("aws:ec2/subnet:Subnet", {"mapPublicIp": True}) == [".mapPublicIp"]
    wrong = {"vpcConfig": {"subnets": []}, "enabledClusterLogTypes": ["api"]}
    assert schema.unknown_names("aws:eks/cluster:Cluster", wrong) == [".vpcConfig.subnets"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_type_that_a_rule_names_exists(rule: Rule):
    for pattern in rule.kinds:
        one = Rule(rule.name, (pattern,), rule.check)
        assert any(one.concerns(token) for token in schema.tokens()), pattern


def test_rules_have_names_of_their_own_descriptions_and_sources():
    names = [rule.name for rule in ALL]
    assert len({*names}) == len(names)
    for rule in ALL:
        assert rule.description.endswith((".", ":")), rule.name
        assert rule.source.endswith("."), rule.name


def test_every_rule_is_mandatory():
    made = policies()
    assert [policy.name for policy in made] == [rule.name for rule in ALL]
    assert {policy.enforcement_level.value for policy in made} == {"mandatory"}


def test_the_table_of_the_readme_has_every_rule():
    rows = [f"| `{rule.name}` | {rule.description} | {rule.source} |" for rule in ALL]
    table = (FOLDER / "README.md").read_text().partition("## Rules")[2].partition("\n## ")[0]
    assert [line for line in table.splitlines() if line.startswith("| `")] == rows


def test_no_module_of_the_pack_hides_one_of_pythons():
    """The engine runs the pack with its folder first on the path."""
    assert NAME not in sys.stdlib_module_names
    assert not {file.stem for file in FOLDER.glob("*.py")} & sys.stdlib_module_names
