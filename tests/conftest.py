"""For all tests."""

from __future__ import annotations

import signal

# Before a test brings Pulumi, and so gRPC: what fl_core says of TLS must come first.
import fl_core  # noqa: F401

# A shell that starts something in the background has it ignore Ctrl-C, and so would the processes
# that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
