"""A silo's own data: a folder of its machine, or what lies below a prefix in Amazon S3."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fl_core.errors import DataError, StorageError
from fl_core.files import inside

SCHEME = "s3://"
MAX_BYTES = 16 * 1024**3
MAX_OBJECTS = 10_000
PAGE_OBJECTS = 1000
CHUNK_BYTES = 1024 * 1024
CONNECT_SECONDS, READ_SECONDS = 5, 20
ATTEMPTS = 3
_FETCHED = "data-"
"""What the names of folders with fetched rows start with."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_DENIED = {"401", "403", "AccessDenied", "AllAccessDisabled", "Forbidden"}
_NO_BUCKET = {"NoSuchBucket", "404"}
_BAD_CREDENTIALS = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_CREDENTIALS = (
    "give the agent credentials of the ordinary AWS chain: its pod's role (EKS Pod Identity), "
    "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)


@dataclass(frozen=True)
class _Object:
    key: str
    name: str
    """The key without the prefix: where the object goes in the folder."""
    size: int
    etag: str


@contextmanager
def folder_of(data: str, scratch: Path, max_bytes: int = MAX_BYTES) -> Iterator[Path]:
    """The folder that holds what ``data`` names: a folder's path, or ``s3://BUCKET/PREFIX``.

    What lies in S3 is fetched into a folder in ``scratch`` that only this user may read, and that
    goes when the block ends. Raises DataError for what cannot be had, is over ``max_bytes`` or has
    a name that leads elsewhere, StorageError when ``scratch`` cannot hold it.
    """
    check(data)
    if not data.startswith(SCHEME):
        yield Path(data)
        return
    bucket, prefix = _address(data)
    try:
        made = tempfile.TemporaryDirectory(prefix=_FETCHED, dir=scratch)
    except OSError as error:
        raise _unwritable(scratch, error) from error
    with made as name:
        _fetch(bucket, prefix, Path(name), max_bytes)
        yield Path(name)


def check(data: str) -> None:
    """Raise DataError for what names neither a folder that is there nor a place in S3."""
    if data.startswith(SCHEME):
        _address(data)
    elif not (folder := Path(data)).is_dir():
        problem = "is no folder" if folder.exists() else "does not exist"
        raise DataError(
            f"data {data!r} {problem}",
            f"name the folder that holds the silo's files, or {SCHEME}BUCKET/PREFIX",
        )


def clear(scratch: Path) -> None:
    """Remove what was fetched into ``scratch`` by a process that was killed before its end."""
    for folder in scratch.glob(f"{_FETCHED}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _address(data: str) -> tuple[str, str]:
    """Bucket and prefix; a prefix ends with a slash, so that ``silo`` does not mean ``silo-2``."""
    bucket, _, prefix = data.removeprefix(SCHEME).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise DataError(
            f"data {data!r}: {bucket!r} is no bucket's name", "write s3://BUCKET/PREFIX"
        )
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def _fetch(bucket: str, prefix: str, folder: Path, max_bytes: int) -> None:
    where = f"{SCHEME}{bucket}/{prefix}"
    client = _client(where)
    objects = _listed(client, bucket, prefix, max_bytes)
    if not objects:
        raise DataError(
            f"no object lies below {where}",
            "name the prefix (the folder) that holds the silo's files, not one of them",
        )
    total = sum(one.size for one in objects)
    names = {one.name for one in objects}
    for one in objects:
        _check_name(folder, f"{SCHEME}{bucket}/{one.key}", one.name, names)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise StorageError(
            f"{where} holds {total} bytes, but {folder.parent} has {free} free",
            "free space, or give the agent's folder for temporary files more",
        )
    for one in objects:
        _download(client, bucket, one, folder / one.name)


def _client(where: str) -> Any:
    try:
        import boto3
    except ImportError as error:
        raise DataError(
            f"{where} is in Amazon S3, and boto3 is not installed", "pip install 'fl-core[s3]'"
        ) from error
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
    )
    try:
        return boto3.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:  # a profile, region or endpoint that is none
        raise DataError(f"{where}: {error}", "correct the agent's AWS settings") from error


def _listed(client: Any, bucket: str, prefix: str, max_bytes: int) -> list[_Object]:
    """The objects below the prefix. Raises DataError for too many of them, or too many bytes."""
    where = f"{SCHEME}{bucket}/{prefix}"
    found: list[_Object] = []
    total = 0
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": PAGE_OBJECTS}
    )
    with _told(where):
        for page in pages:
            for entry in page.get("Contents", []):
                key, size = entry["Key"], entry["Size"]
                if key.endswith("/") and size == 0:  # what consoles show as a folder
                    continue
                found.append(_Object(key, key.removeprefix(prefix), size, entry["ETag"]))
                total += size
            if total > max_bytes or len(found) > MAX_OBJECTS:
                raise DataError(
                    f"{where} holds over {max_bytes} bytes or {MAX_OBJECTS} objects",
                    "name a prefix that holds nothing but the silo's files",
                )
    return found


def _check_name(folder: Path, where: str, name: str, names: set[str]) -> None:
    """Raise DataError for a name that is no file's in ``folder`` beside the other ``names``."""
    remedy = "give the object a plain name, or name another prefix"
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise DataError(f"{where!r:.300}: its name is no path below the prefix", remedy)
    inside(folder, name)
    if any(str(parent) in names for parent in PurePosixPath(name).parents):
        raise DataError(f"{where!r:.300}: an object has the name of its folder", remedy)


def _download(client: Any, bucket: str, one: _Object, path: Path) -> None:
    """Write one object to ``path``. Raises DataError, StorageError."""
    from botocore.exceptions import BotoCoreError

    where = f"{SCHEME}{bucket}/{one.key}"
    for attempt in range(1, ATTEMPTS + 1):
        with _told(where):
            try:
                _write(client.get_object(Bucket=bucket, Key=one.key, IfMatch=one.etag), one, path)
            except BotoCoreError:
                # botocore itself tries again until an answer begins, not when it breaks off.
                if attempt == ATTEMPTS:
                    raise
                time.sleep(attempt)
                continue
        if path.stat().st_size == one.size:
            return
        raise DataError(f"{where} changed while it was read", "run again when it is whole")


def _write(answer: Any, one: _Object, path: Path) -> None:
    """What the answer holds, and never more than one byte over the size that was listed."""
    left = one.size + 1
    with answer["Body"] as body:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                while left and (chunk := body.read(min(CHUNK_BYTES, left))):
                    file.write(chunk)
                    left -= len(chunk)
        except OSError as error:
            raise _unwritable(path, error) from error


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Turn what botocore raises about ``where`` into a DataError."""
    from botocore import exceptions as aws

    try:
        yield
    except aws.ClientError as error:
        raise _refused(where, error.response) from error
    except (
        aws.NoCredentialsError,
        aws.PartialCredentialsError,
        aws.CredentialRetrievalError,
        aws.TokenRetrievalError,
        aws.SSOError,
    ) as error:
        raise DataError(f"{where}: no credentials for it: {error}", _CREDENTIALS) from error
    except (aws.ConnectionError, aws.HTTPClientError) as error:
        raise DataError(
            f"{where}: the endpoint does not answer: {error}",
            "is there a way from the agent to S3 (gateway endpoint, proxy, AWS_ENDPOINT_URL_S3)?",
        ) from error
    except aws.BotoCoreError as error:
        raise DataError(f"{where}: {error}", "correct the agent's AWS settings") from error


def _refused(where: str, response: Any) -> DataError:
    """What S3 answered, as an error."""
    code = str(response.get("Error", {}).get("Code", "unknown"))
    said = str(response.get("Error", {}).get("Message", ""))
    if code in _NO_BUCKET:
        return DataError(f"{where}: there is no such bucket", "correct the bucket's name")
    if code in _DENIED:
        return DataError(
            f"{where}: access denied ({said})",
            "the agent's role needs s3:ListBucket on the bucket (for this prefix), s3:GetObject on "
            "what lies below it, and kms:Decrypt where it is encrypted with a key of yours",
        )
    if code in _BAD_CREDENTIALS:
        return DataError(f"{where}: S3 does not take the credentials ({code})", _CREDENTIALS)
    if code in ("PreconditionFailed", "NoSuchKey", "412"):
        return DataError(f"{where} changed while it was read", "run again when it is whole")
    return DataError(f"{where}: S3 answers {code}: {said}", "see what S3 says of this error")


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write {path}: {error.strerror}",
        "free space in the agent's folder for temporary files, or name another with TMPDIR",
    )
