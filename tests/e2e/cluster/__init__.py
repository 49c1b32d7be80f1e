"""A real Kubernetes of one node on a bare Linux machine, in namespaces of its own.

``python3 -m tests.e2e.cluster`` has the commands; README.md says what they do. Tests call what
is named here. Only Python's own library is needed.
"""

from .errors import ClusterError
from .nodes import environment, image_names, inside, load_image
from .paths import BIN, KUBECONFIG
from .start import up, works
from .stop import down

__all__ = [
    "BIN",
    "KUBECONFIG",
    "ClusterError",
    "down",
    "environment",
    "image_names",
    "inside",
    "load_image",
    "up",
    "works",
]
