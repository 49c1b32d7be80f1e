"""Where everything lies, on the machine and as the node sees it."""

from __future__ import annotations

import hashlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build" / "e2e"
BIN = BUILD / "bin"
IMAGES = BUILD / "bin" / "images"
"""Archives of the cluster's own images."""
STATE = BUILD / "cluster"
LIB = STATE / "lib"
"""The node's /var/lib: containers, volumes, etcd."""
LOG = STATE / "log"
"""The node's /var/log; stays when the cluster is gone."""
PKI = STATE / "pki"
CACHE = STATE / "cache"
"""What kubectl would keep in the home folder."""
KUBECONFIG = STATE / "kubeconfig"
HOLDER = STATE / "holder.json"
"""The process that holds the node's namespaces, and when it started."""
LOCK = BUILD / "cluster.lock"

CGROUP = f"fl-cluster-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"
"""Another checkout's cluster has another name."""

NODE = "node"
NODE_IP = "10.87.0.1"
API_SERVER_IP, API_SERVER_PORT = "127.0.0.1", 6443
API_SERVER = f"https://{API_SERVER_IP}:{API_SERVER_PORT}"
SERVICES = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"

# As the node sees it: the same paths whatever the folder is called, and short enough for sockets.
NODE_ROOT = Path("/run/cluster")
NODE_BIN = NODE_ROOT / "bin"
NODE_CONFIG = NODE_ROOT / "config"
NODE_PKI = NODE_ROOT / "pki"
NODE_PYTHON = NODE_ROOT / "python"
NODE_VOLUMES = Path("/var/lib/volumes")
