"""`fl` where SageMaker's SDK is imported already, which takes seconds: a fork for each call.

Reads calls as lines of JSON, and answers each with what it printed and its exit code. A call is
either `arguments` of fl, or a `run` to write with the SDK's own Run, or `sdk`, a function of
sdk_program and its arguments, whose answer is printed. Whoever wants to connect to another machine
than this is ended.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import boto3
import botocore.loaders
import sagemaker.core.resources  # noqa: F401 # pyright: ignore

from fl_core.cli import main
from fl_core.tracking.experiments_reader import _settings
from tests.tracking import sdk_program

LEFT = 99


def _stay_here(event: str, given: tuple[Any, ...]) -> None:
    """An audit hook."""
    if event == "socket.getaddrinfo":
        host = given[0]
    elif event == "socket.connect" and isinstance(given[1], tuple):
        host = given[1][0]
    else:
        return
    if host not in ("127.0.0.1", "::1", "localhost", None, ""):
        os.write(2, f"{host} is not this machine\n".encode())
        os._exit(LEFT)


def _write(experiment: str, run: str, fail: bool) -> None:
    """A run as others write them: steps from 0, a metric without steps, parameters of any name."""
    from sagemaker.core.experiments.run import Run  # pyright: ignore
    from sagemaker.core.helper.session_helper import Session  # pyright: ignore

    session = Session(boto3.Session(), default_bucket="none")
    with Run(experiment_name=experiment, run_name=run, sagemaker_session=session) as written:
        written.log_parameters({"Tiefe (m)": 3, "notes": "a b", "seconds.total": 1.5})
        for step in range(3):
            written.log_metric(name="val_loss", value=1 / (step + 1), step=step)
        written.log_metric(name="gpu", value=10.0)
        if fail:
            raise ValueError("diverged")


def _call(given: dict[str, Any], folder: Path) -> None:
    """In a process of its own."""
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(folder / name, os.O_CREAT | os.O_WRONLY)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(given["environment"])
    sys.addaudithook(_stay_here)
    if "run" in given:
        with _settings(folder):
            _write(**given["run"])
    elif "sdk" in given:
        logging.disable(logging.CRITICAL)
        name, *arguments = given["sdk"]
        with _settings(folder):
            print(json.dumps(getattr(sdk_program, name)(*arguments)))
    else:
        main(given["arguments"])


def _serve() -> None:
    # Clients, of nothing: so that what they need has been imported and read.
    botocore.loaders.create_loader = functools.cache(botocore.loaders.create_loader)
    session = boto3.Session("none", "none", region_name="eu-central-1")
    for service in ("sagemaker", "sagemaker-metrics", "s3", "sts"):
        session.client(service).close()
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    _call(json.loads(line), folder)
                    code = 0
                except SystemExit as end:
                    code = int(end.code or 0)
                except Exception:  # noqa: BLE001 - the child ends here, and says why
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            _, status = os.waitpid(child, 0)
            answer = {
                "code": os.waitstatus_to_exitcode(status),
                "out": (folder / "out").read_text(),
                "err": (folder / "err").read_text(),
            }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
