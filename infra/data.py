"""The silos' own data: what lies on this machine goes into a Secret, what lies in S3 stays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from fl_core.errors import DataError
from fl_core.own_data import SCHEME, check
from infra.config.common import ConfigError
from infra.config.keys import where
from infra.config.local import Config, Silo

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder: paths of data are relative to it."""
MAX_BYTES = 900_000
"""Of a silo's files in all: Kubernetes takes 1 MiB in a Secret, names included."""
_KEY = re.compile(r"[A-Za-z0-9][\w.-]{0,252}", re.ASCII)
_S3_PREFIX = re.compile(r"s3://[^/\s]+(/[^/\s]+)*/?")
_USE_S3 = f"put it into Amazon S3, and name the prefix: {SCHEME}BUCKET/PREFIX"

Files = Mapping[str, bytes]


def in_s3(silo: Silo) -> bool:
    """Whether the silo's agent fetches the data itself."""
    return silo.data.startswith(SCHEME)


def read(config: Config) -> dict[str, Files]:
    """The files of each silo whose data lies on this machine.

    A single file gets the silo's name, for that is what a run looks for; the files of a folder keep
    theirs. Raises ConfigError, naming the key, for data that is not there or cannot be taken.
    """
    files: dict[str, Files] = {}
    for i, silo in enumerate(config.silos):
        key = where(["silos", i, "data"])
        if in_s3(silo):
            _check_s3(key, silo.data)
        else:
            files[silo.name] = _files(key, silo)
    return files


def _check_s3(key: str, data: str) -> None:
    try:
        check(data)
    except DataError as error:
        raise ConfigError(f"{key}: {error.message}", error.remedy) from error
    if not _S3_PREFIX.fullmatch(data) or data.endswith(".csv"):
        raise ConfigError(
            f"{key}: {data!r} is no prefix in Amazon S3",
            f"write {SCHEME}BUCKET/PREFIX: what one would call the folder of the files",
        )


def _files(key: str, silo: Silo) -> Files:
    if "://" in silo.data or silo.data.startswith("s3:"):
        raise ConfigError(
            f"{key}: {silo.data!r} is neither a path nor in Amazon S3",
            f"name a csv file, a folder of csv files, or {SCHEME}BUCKET/PREFIX",
        )
    path = ROOT / silo.data
    if path.is_dir():
        found = sorted(
            one for one in path.iterdir() if _is_csv(one) and not one.name.startswith(".")
        )
        if not found:
            raise ConfigError(f"{key}: no csv file in the folder {silo.data!r}", _correct(path))
        named = {one.name: one for one in found}
    elif not path.exists():
        raise ConfigError(f"{key}: {silo.data!r} does not exist", _correct(path))
    elif not _is_csv(path):
        raise ConfigError(f"{key}: {silo.data!r} is no csv file", "name one, or a folder of them")
    else:
        named = {f"{silo.name}.csv": path}
    for name in named:
        if not _KEY.fullmatch(name):
            raise ConfigError(
                f"{key}: a Secret takes no file named {name!r}",
                "rename it: letters, digits, dots, hyphens and underscores",
            )
    return _contents(key, named)


def _contents(key: str, named: Mapping[str, Path]) -> Files:
    """What the files hold, without reading more than fits. Raises ConfigError."""
    files: dict[str, bytes] = {}
    left = MAX_BYTES
    for name, path in named.items():
        try:
            with path.open("rb") as file:
                content = file.read(left + 1)
        except OSError as error:
            raise ConfigError(
                f"{key}: cannot read {path}: {error.strerror}", "make it readable for you"
            ) from error
        left -= len(content)
        if left < 0:
            raise ConfigError(f"{key}: over {MAX_BYTES} bytes, too much for a Secret", _USE_S3)
        if not content.strip():
            raise ConfigError(f"{key}: {path} is empty", "name the file that holds the rows")
        files[name] = content
    return files


def _is_csv(path: Path) -> bool:
    return path.suffix == ".csv" and path.is_file()


def _correct(path: Path) -> str:
    return f"correct the path; it is relative to the project's folder, and so means {path}"
