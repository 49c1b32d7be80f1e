"""Serves the pack to Pulumi's engine: `pulumi up --policy-pack infra/policy`."""

from __future__ import annotations

import sys
from pathlib import Path

# Pulumi runs this file in its own folder, from where the project's packages are not found.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pulumi_policy import EnforcementLevel, PolicyPack

from infra.policy.pack import NAME, policies

PolicyPack(NAME, policies(), EnforcementLevel.MANDATORY)
