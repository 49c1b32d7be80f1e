"""What an account must have before a federation's stack can make anything in it.

Run once in each account, by its administrator; see README.md beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Pulumi runs this file in its own folder, from where the project's packages are not found.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pulumi
import pulumi_aws as aws

from fl_core.errors import FlError
from infra.bootstrap import guards, roles, settings
from infra.bootstrap.place import Place


def main() -> None:
    """Make it all. Raises FlError before anything is made."""
    given, external_id = settings.load()
    provider = aws.Provider(
        "account",
        region=given.region,
        allowed_account_ids=[given.account],
        default_tags={"tags": {"fl-silos:bootstrap": given.federation}},
    )
    opts = pulumi.ResourceOptions(provider=provider)
    secret = pulumi.Output.secret(external_id)
    deployer, kubernetes = roles.made(Place(given), secret, opts)
    guards.defaults(opts)
    if given.guardduty:
        guards.guardduty(opts)
    pulumi.export("deployer", deployer.arn)
    pulumi.export("kubernetes", kubernetes.arn)
    pulumi.export("external_id", secret)
    pulumi.export(
        "for_the_stacks_file",
        {"account": given.account, "region": given.region, "external_id": secret},
    )


try:
    main()
except FlError as error:
    raise pulumi.RunError(f"{error.message}; {error.remedy}") from error
