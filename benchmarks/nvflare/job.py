"""The constant job on NVFlare: ``job.py FOLDER --silos N --rounds R --env sim|poc [--collab]``.

By default, what NVFlare's recipe for FedAvg over NumPy arrays is made of, by the Job API, and a
clock beside it; the silos use the Client API. ``--collab`` takes the Collab API instead. FOLDER has
initial.npy and gets times.json.
"""

# NVFlare is in an environment of its own.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
from pathlib import Path

import mean
from clock import Clock
from nvflare.app_common.np.np_model_persistor import NPModelPersistor
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.collab import CollabRecipe
from nvflare.fuel.utils.constants import FrameworkType
from nvflare.job_config.base_fed_job import BaseFedJob
from nvflare.job_config.script_runner import ScriptRunner
from nvflare.recipe import PocEnv, Run, SimEnv

NAME = "constant"


def fedavg(folder: Path, silos: int, rounds: int) -> BaseFedJob:
    """NVFlare's FedAvg."""
    job = BaseFedJob(name=NAME, min_clients=silos)
    initial = str(folder / "initial.npy")
    job.to_server(NPModelPersistor(source_ckpt_file_full_name=initial), id="persistor")
    job.to_server(FedAvg(num_clients=silos, num_rounds=rounds, persistor_id="persistor"))
    job.to_server(Clock(str(folder)), id="clock")
    script = str(Path(__file__).with_name("client.py"))
    arguments = f"--silos {silos}"
    numpy = FrameworkType.NUMPY
    job.to_clients(ScriptRunner(script=script, script_args=arguments, framework=numpy))
    return job


def collab(folder: Path, silos: int, rounds: int) -> CollabRecipe:
    """The same, by the Collab API."""
    recipe = CollabRecipe(NAME, server=mean, client=mean, min_clients=silos)
    recipe.set_server_prop("folder", str(folder))
    recipe.set_server_prop("rounds", rounds)
    recipe.set_client_prop("silos", silos)
    return recipe


def main() -> None:
    """Run it to its end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--silos", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--env", choices=("sim", "poc"), required=True)
    parser.add_argument("--collab", action="store_true")
    given = parser.parse_args()
    if given.env == "poc":
        environment = PocEnv(num_clients=given.silos)
    else:
        root = str(given.folder / "simulation")
        environment = SimEnv(num_clients=given.silos, workspace_root=root)
    work = given.folder, given.silos, given.rounds
    if given.collab:
        run = collab(*work).run(environment)
    else:
        run = Run(environment, environment.deploy(fedavg(*work)))
    print("result:", run.get_result())


if __name__ == "__main__":
    main()
