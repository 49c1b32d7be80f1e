"""The parts of FedML 0.9.6 that the roles are made of.

Importing FedML imports its launcher, vendor cloud and attack modules, which pull in torch,
torchvision, wandb, docker and more: many seconds and 800 MB that the cross-silo managers never
use. While FedML is imported here, empty stand-ins take those packages' places, installed or not;
afterwards they are gone again, so that a plugin that imports one of them gets the real thing.
"""

from __future__ import annotations

import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

STOOD_IN = frozenset(
    """
    aiohttp boto3 botocore cachetools certifi chardet click dateutil dill docker dotenv fastapi
    GPUtil h5py httpx matplotlib multiprocess networkx onnx packaging paho pandas PIL
    pkg_resources prettytable psutil redis requests scipy sklearn sqlalchemy starlette
    torch torchvision tqdm tritonclient uvicorn wandb wget yaml
    """.split()
)
"""Top-level packages that FedML imports and its cross-silo managers do not use."""


class _Anything(type):
    """Stands for any class, function or decorator that is only defined with, never called."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if not _importing:
            raise RuntimeError("FedML called into a package that fl_core stands in for")
        return args[0] if len(args) == 1 and not kwargs and callable(args[0]) else cls


class _Absent(metaclass=_Anything):
    pass


class _StandIn(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] in STOOD_IN:
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def _stood_in() -> dict[str, ModuleType]:
    return {n: m for n, m in sys.modules.items() if n.partition(".")[0] in STOOD_IN}


_importing = True
_real = _stood_in()
for _name in _real:
    del sys.modules[_name]
_finder = _Finder()
sys.meta_path.insert(0, _finder)
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FedML's own, about its own code
        from fedml.core.distributed.communication.base_com_manager import BaseCommunicationManager
        from fedml.core.distributed.communication.message import Message
        from fedml.core.mlops import MLOpsStore
        from fedml.cross_silo.client.fedml_client_master_manager import ClientMasterManager
        from fedml.cross_silo.client.message_define import MyMessage
        from fedml.cross_silo.server.fedml_server_manager import FedMLServerManager
finally:
    sys.meta_path.remove(_finder)
    for _name in _stood_in():
        del sys.modules[_name]
    sys.modules.update(_real)
    _importing = False

__all__ = [
    "BaseCommunicationManager",
    "ClientMasterManager",
    "FedMLServerManager",
    "Message",
    "MyMessage",
    "arguments",
]


def arguments(run_id: str, rank: int, silos: int, rounds: int) -> SimpleNamespace:
    """What FedML's managers read from ``args``; rank 0 is the aggregator, silos count from 1.

    Also tells FedML's MLOps layer that it is off: otherwise its first call fetches the vendor's
    configuration from the network.
    """
    ranks = list(range(1, silos + 1)) if rank == 0 else [rank]
    args = SimpleNamespace(
        run_id=run_id,
        rank=rank,
        round_idx=0,
        comm_round=rounds,
        client_id_list=str(ranks),
        client_num_in_total=silos,
        client_num_per_round=silos,
        scenario="horizontal",
        using_mlops=False,
    )
    MLOpsStore.mlops_args = args  # pyright: ignore[reportAttributeAccessIssue]
    return args
