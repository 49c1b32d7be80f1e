"""Names that a party's network may resolve.

A network without an internet path still resolves every name, and whoever owns a domain sees what
is asked of it: a way out for data, one label at a time.
"""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from fl_core.names import cut
from infra import names
from infra.accounts import Account

# Route 53 takes 101 to 9899 here; the account's own groups may go first or last.
PRIORITY = 5000
ALLOW, BLOCK = 1, 2
# Route 53 takes 64 characters, of which Pulumi's suffix has 8.
_LONGEST = 56


def allowed(federation: str) -> list[str]:
    """AWS, the federation's own names, and what the VPC's resolver answers by itself.

    The last are the hosts' search domain: without it, some clients stop at the first name that they
    try instead of going on to the next.
    """
    own = names.zone(federation)
    return [
        "*.amazonaws.com",
        "*.aws",
        "*.compute.internal",
        "*.ec2.internal",
        own,
        f"*.{own}",
    ]


def confine(
    account: Account, parent: pulumi.Resource, vpc_id: pulumi.Input[str]
) -> list[pulumi.Resource]:
    """Let the network resolve no other names."""
    opts = account.child(parent)
    group = aws.route53.ResolverFirewallRuleGroup(_named(account, "names"), opts=opts)
    known = aws.route53.ResolverFirewallDomainList(
        _named(account, "known-names"), domains=allowed(account.federation), opts=opts
    )
    everything = aws.route53.ResolverFirewallDomainList(
        _named(account, "all-names"), domains=["*"], opts=opts
    )
    rules: list[pulumi.Resource] = [
        aws.route53.ResolverFirewallRule(
            _named(account, "allow-known-names"),
            firewall_rule_group_id=group.id,
            firewall_domain_list_id=known.id,
            action="ALLOW",
            # Who answers for these names is trusted in what they refer to.
            firewall_domain_redirection_action="TRUST_REDIRECTION_DOMAIN",
            priority=ALLOW,
            opts=opts,
        ),
        aws.route53.ResolverFirewallRule(
            _named(account, "block-other-names"),
            firewall_rule_group_id=group.id,
            firewall_domain_list_id=everything.id,
            action="BLOCK",
            block_response="NODATA",
            priority=BLOCK,
            opts=opts,
        ),
    ]
    association = aws.route53.ResolverFirewallRuleGroupAssociation(
        _named(account, "names"),
        firewall_rule_group_id=group.id,
        vpc_id=vpc_id,
        priority=PRIORITY,
        # Protected, it would stand in the way of a destroy. Who may remove it may lift that, too.
        mutation_protection="DISABLED",
        # Blocked names first, and on the way back the group is empty only once it serves nobody.
        opts=account.child(parent, depends_on=rules),
    )
    return [association]


def _named(account: Account, what: str) -> str:
    return cut(account.named(what), _LONGEST)
