"""The roles are FedML's, and importing FedML changes nothing of the process around it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
import logging, sys
before = (sys.excepthook, sys.stdout, sys.stderr, list(logging.root.handlers), logging.root.level)
import certifi_probe
bundle = certifi_probe.digest()
from fl_core.roles import aggregator, fedml, silo
from fedml.cross_silo.client.fedml_client_master_manager import ClientMasterManager
from fedml.cross_silo.server.fedml_server_manager import FedMLServerManager
from fedml.core.distributed.communication.base_com_manager import BaseCommunicationManager
from fl_core.roles.communication import Communication
assert issubclass(aggregator.Aggregator, FedMLServerManager)
assert issubclass(silo.Silo, ClientMasterManager)
assert issubclass(Communication, BaseCommunicationManager)
after = (sys.excepthook, sys.stdout, sys.stderr, list(logging.root.handlers), logging.root.level)
assert before == after, after
assert certifi_probe.digest() == bundle
stood_in = [m for m in sys.modules if m.partition(".")[0] in fedml.STOOD_IN]
assert all(type(sys.modules[m]).__name__ != "_StandIn" for m in stood_in), stood_in
import yaml, click
assert yaml.safe_load("a: 1") == {"a": 1} and click.echo
assert "torch" not in sys.modules
try:
    fedml._Absent()
except RuntimeError as error:
    assert "stands in" in str(error)
else:
    raise AssertionError("a stand-in could be called")
print("held")
"""
CERTIFI_PROBE = """
import hashlib, importlib.util, pathlib
def digest():
    spec = importlib.util.find_spec("certifi")
    if spec is None:
        return None
    bundle = pathlib.Path(spec.origin).with_name("cacert.pem")
    return hashlib.sha256(bundle.read_bytes()).hexdigest()
"""


def test_importing_fedml_leaves_the_process_as_it_was(tmp_path) -> None:
    (tmp_path / "certifi_probe.py").write_text(CERTIFI_PROBE)
    (tmp_path / "probe.py").write_text(PROBE)
    outcome = subprocess.run(
        [sys.executable, str(tmp_path / "probe.py")], capture_output=True, text=True, check=False
    )
    assert outcome.stdout.splitlines()[-1:] == ["held"], outcome.stderr


def test_what_roles_are_forked_from_has_imported_what_they_need() -> None:
    code = (
        "import sys, fl_core.fork_server\n"
        "from fl_core.local import warm_up\n"
        "wanted = {'fedml', 'grpc', 'fl_core.roles.silo', 'fl_core.roles.aggregator'}\n"
        "print(sorted(wanted - sys.modules.keys()), flush=True)\n"
    )
    assert output(code) == "[]"


@pytest.mark.parametrize("first", ["import torch", "from fl_core.roles import fedml"])
def test_a_model_gets_the_real_torch_whichever_is_imported_first(first: str) -> None:
    code = (
        f"{first}\n"
        "from fl_core.roles import aggregator\n"
        "import torch\n"
        "layer = torch.nn.Linear(2, 1)\n"
        "layer(torch.ones(3, 2)).sum().backward()\n"
        "print(layer.weight.grad.tolist(), flush=True)\n"
    )
    assert output(code) == "[[3.0, 3.0]]"


def output(code: str) -> str:
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.strip()
