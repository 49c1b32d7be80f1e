"""A recording's Kubernetes objects as YAML, which is what checkov judges."""

from __future__ import annotations

import yaml

from tests.infra.recording import Recording, opened


def manifests(recording: Recording) -> str:
    """All objects. The secrets in them are made up: no recording has real ones."""
    objects = [
        opened(record.properties)
        for _, record in sorted(recording.resources.items())
        if record.kind.startswith("kubernetes:")
    ]
    return yaml.safe_dump_all(objects)
