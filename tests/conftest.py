"""For all tests."""

from __future__ import annotations

# Before a test brings Pulumi, and so gRPC: what fl_core says of TLS must come first.
import fl_core  # noqa: F401
