"""Federated learning for institutions that keep their data: the core of the ``fl`` command."""

import os
import sys

__version__ = "0.1.0"

# All keys are P-256, so that no cipher suite of TLS 1.2 fits these RSA-only ones, and gRPC does not
# let one choose those of TLS 1.3: that is all that is left. gRPC for Python has no option for a
# version. It reads this once, when it is imported: hence here, before any module of ours does that.
TLS13_ONLY = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256"
GRPC_CAME_FIRST = "grpc" in sys.modules and os.environ.get("GRPC_SSL_CIPHER_SUITES") != TLS13_ONLY
os.environ["GRPC_SSL_CIPHER_SUITES"] = TLS13_ONLY
