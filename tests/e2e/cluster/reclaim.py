"""A program of the node: empties a volume that its claim has left, and offers it again."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from .api import call
from .paths import NODE_VOLUMES

PATH = "/api/v1/persistentvolumes"
RETRY_SECONDS = 1.0


def main() -> None:
    """Give volumes back, for as long as the node is there."""
    while True:
        try:
            watch()
        except OSError as error:
            print(f"{error}; again in {RETRY_SECONDS} s", flush=True)
        time.sleep(RETRY_SECONDS)


def watch() -> None:
    """Follow the volumes until the API server ends the stream, which it does every hour or so."""
    with call("GET", f"{PATH}?watch=1", seconds=None) as events:
        for line in events:
            give_back(json.loads(line)["object"]["metadata"]["name"])


def give_back(name: str) -> None:
    """Empty a volume and offer it again, if its claim is gone.

    As it is now, not as an event had it: by then the next claim may have it.
    """
    with call("GET", f"{PATH}/{name}") as answer:
        volume = json.load(answer)
    if volume["status"]["phase"] != "Released" or not volume["spec"].get("claimRef"):
        return
    empty(NODE_VOLUMES / name)
    version = volume["metadata"]["resourceVersion"]
    change = {"metadata": {"resourceVersion": version}, "spec": {"claimRef": None}}
    with call("PATCH", f"{PATH}/{name}", change):
        print(f"{name} is free again", flush=True)


def empty(folder: Path) -> None:
    """Make a folder as new: nothing in it, and root's again."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    os.chown(folder, 0, 0)
    folder.chmod(0o755)


if __name__ == "__main__":
    main()
