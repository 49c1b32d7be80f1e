"""Federated learning for institutions that keep their data: the core of the ``fl`` command."""

import os

__version__ = "0.1.0"

# TLS 1.3 only. All keys are P-256, so that no cipher suite of TLS 1.2 fits these RSA-only ones, and
# gRPC does not let one choose those of TLS 1.3; gRPC for Python has no option for a version. It
# reads this once, when it is imported: hence here, before any module of ours can do that.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256"
