"""What a silo does in NVFlare's Client API: add a constant to the array."""

# NVFlare is in an environment of its own.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import argparse

import nvflare.client as flare


def main() -> None:
    """Answer until the job ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--silos", type=int, required=True)
    silos = parser.parse_args().silos
    flare.init()
    constant = int(flare.get_site_name().removeprefix("site-")) / silos
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        model.params["numpy_key"] += model.params["numpy_key"].dtype.type(constant)
        meta = {"NUM_STEPS_CURRENT_ROUND": 1}
        flare.send(flare.FLModel(params=model.params, params_type=model.params_type, meta=meta))


if __name__ == "__main__":
    main()
