"""All rules, and how Pulumi's engine runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyProviderResource,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.deserialize import serialize_properties
from pulumi_policy.proxy import (
    UNKNOWN_ARCHIVE_VALUE,
    UNKNOWN_ARRAY_VALUE,
    UNKNOWN_ASSET_VALUE,
    UNKNOWN_BOOLEAN_VALUE,
    UNKNOWN_NUMBER_VALUE,
    UNKNOWN_OBJECT_VALUE,
    UNKNOWN_STRING_VALUE,
)

from infra.policy import (
    access,
    accounts,
    cluster,
    data,
    machines,
    network,
    objects,
    plaintext,
    pods,
)
from infra.policy.rule import Resource, Rule, StackRule
from infra.policy.values import UNKNOWN

NAME = "fl-silos"
_MODULES = (accounts, network, machines, cluster, data, access, objects, pods, plaintext)
_UNKNOWNS = frozenset(
    (
        UNKNOWN_ARCHIVE_VALUE,
        UNKNOWN_ARRAY_VALUE,
        UNKNOWN_ASSET_VALUE,
        UNKNOWN_BOOLEAN_VALUE,
        UNKNOWN_NUMBER_VALUE,
        UNKNOWN_OBJECT_VALUE,
        UNKNOWN_STRING_VALUE,
    )
)
_Any = TypeVar("_Any", Rule, StackRule)


def _all(kind: type[_Any]) -> tuple[_Any, ...]:
    return tuple(
        value for module in _MODULES for value in vars(module).values() if isinstance(value, kind)
    )


RULES, STACK_RULES = _all(Rule), _all(StackRule)


def judged(stack: Sequence[Resource]) -> list[tuple[str, Resource, str]]:
    """Name of the rule, resource and message of everything wrong with a stack."""
    found = [
        (rule.name, resource, message)
        for resource in stack
        for rule in RULES
        for message in rule.broken_by(resource)
    ]
    return found + [
        (rule.name, resource, message)
        for rule in STACK_RULES
        for resource, message in rule.broken_by(stack)
    ]


def known(value: Any) -> Any:
    """A value from the engine, with UNKNOWN where it will be known later."""
    if isinstance(value, str):
        return UNKNOWN if value in _UNKNOWNS else value
    if isinstance(value, Mapping):
        return {key: known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [known(item) for item in value]
    return value


def policies() -> list[Policy]:
    """The rules as the engine wants them, each of them mandatory."""
    return [*map(_resource_policy, RULES), *map(_stack_policy, STACK_RULES)]


def _resource_policy(rule: Rule) -> Policy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if not rule.concerns(args.resource_type):
            return
        for message in rule.broken_by(_resource(args)):
            report(message, None)

    return ResourceValidationPolicy(
        rule.name, rule.description, validate, EnforcementLevel.MANDATORY
    )


def _stack_policy(rule: StackRule) -> Policy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for resource, message in rule.broken_by([_in_stack(one) for one in args.resources]):
            report(message, resource.urn)

    return StackValidationPolicy(rule.name, rule.description, validate, EnforcementLevel.MANDATORY)


def _resource(args: ResourceValidationArgs) -> Resource:
    return Resource(
        args.urn,
        args.resource_type,
        _properties(args.props),
        _urn(args.provider),
        args.opts.parent or "",
    )


def _in_stack(resource: PolicyResource) -> Resource:
    props = _properties(resource.props)
    return Resource(
        resource.urn,
        resource.resource_type,
        props,
        _urn(resource.provider),
        resource.opts.parent or "",
        ids=_ids(props),
        references={
            name: frozenset(one.urn for one in found)
            for name, found in resource.property_dependencies.items()
        },
        dependencies=frozenset(one.urn for one in resource.dependencies),
    )


def _ids(props: Mapping[str, Any]) -> frozenset[str]:
    values = [props.get(key) for key in ("id", "arn", "bucket", "name")]
    given = {value for value in values if isinstance(value, str)}
    return frozenset(given | {value.rpartition("/")[2] for value in given})


def _properties(props: Mapping[str, Any]) -> dict[str, Any]:
    """The properties without the SDK's proxies, which refuse to hand out what is not known."""
    return known(serialize_properties(props))


def _urn(provider: PolicyProviderResource | None) -> str:
    return provider.urn if provider is not None else ""
