"""How long the Pulumi program takes for a federation on AWS: ``python -m benchmarks.program``.

No engine and no cloud: resources go to the recorder of tests/infra, which answers at once. Once as
the program is, and once leaving the waiting to Pulumi's SDK, which is the reference.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from tests.infra import stacks
from tests.infra.recording import record


def federation_of(silos: int) -> dict[str, Any]:
    """The settings of the stack `prod` with so many silos."""
    config = stacks.filled("prod")
    config["silos"] = [
        {
            **copy.deepcopy(config["silos"][0]),
            "name": f"silo-{i}",
            "account": f"{100_000_000_000 + i}",
            "api": {"tunnel": 9000 + i},
        }
        for i in range(silos)
    ]
    return config


def without_our_wait() -> None:
    """The program, as if `infra/__main__.py` ended when everything is asked for."""
    from infra import federation

    federation.main()


def measured(silos: int, program: Callable[[], None] | None) -> tuple[int, float, float]:
    """Resources, seconds, and seconds of CPU of a first preview."""
    config = federation_of(silos)
    began, used = time.perf_counter(), time.process_time()
    made = record(config, "prod", preview=True, program=program)
    return len(made.resources), time.perf_counter() - began, time.process_time() - used


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--silos", type=int, default=10)
    silos = parser.parse_args(arguments).silos
    warnings.simplefilter("ignore")
    measured(1, None)  # the providers' SDKs are imported by then
    resources, wall, cpu = measured(silos, None)
    _, reference, reference_cpu = measured(silos, without_our_wait)
    print(f"{silos} silos, {resources} resources: {wall:.1f} s, {cpu:.1f} s of CPU")
    print(f"with the SDK's wait: {reference:.1f} s, {reference_cpu:.1f} s of CPU")
    print(f"ratio: {wall / reference:.2f}")


if __name__ == "__main__":
    main()
