"""What a silo's own stack and the aggregator's give each other: by value, or by the stack's name.

The silo gives a request for a certificate; its key stays. The aggregator gives the certificate, the
authority's certificate, and the name of its endpoint service. None of it is secret.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from infra.config.aws import Guest, Host

REQUEST, CERTIFICATES, AUTHORITY, SERVICE = "request", "certificates", "authority", "service"
"""Names of the stacks' outputs."""
GIVEN = ("service", "authority", "certificate")
"""What a silo's stack is given by value."""


@dataclass(frozen=True)
class Given:
    """What the aggregator has given a silo so far."""

    service: pulumi.Input[str] | None
    certificate: pulumi.Input[str] | None
    authority: pulumi.Input[str] | None


def request(silo: Guest) -> pulumi.Input[str] | None:
    """The request of a silo that has its own stack; None as long as there is none."""
    if silo.stack is not None:
        return pulumi.StackReference(silo.stack).require_output(REQUEST)
    return silo.request


def given(aggregator: Host, silo: str) -> Given:
    """What the aggregator, which has its own stack, has given the silo."""
    if aggregator.stack is None:
        return Given(aggregator.service, aggregator.certificate, aggregator.authority)
    stack = pulumi.StackReference(aggregator.stack)
    certificates = stack.require_output(CERTIFICATES)
    return Given(
        stack.require_output(SERVICE),
        certificates.apply(lambda known: _certificate(known, silo, str(aggregator.stack))),
        stack.require_output(AUTHORITY),
    )


def _certificate(known: dict[str, str], silo: str, stack: str) -> str:
    if silo not in known:
        raise pulumi.RunError(
            f"the stack {stack} has signed no certificate for {silo!r}; run `pulumi up` here "
            "without aggregator.stack first, then there with this silo's stack or request under "
            "silos, then here again"
        )
    return known[silo]
