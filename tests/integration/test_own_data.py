"""A silo's own data: a folder, or objects of an S3 service that a test runs on loopback."""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fl_core import own_data
from fl_core.errors import DataError, FlError, StorageError
from fl_core.own_data import folder_of
from tests.aws_clients import models_of_aws, ordinary_chain  # noqa: F401

BUCKET = "hospital-rows"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The ordinary chain of credentials, with nothing of this machine in it."""
    ordinary_chain(monkeypatch, tmp_path)


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a service without objects, which the code under test finds as well."""
    post(f"{server}/moto-api/reset")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server)
    client = boto3.client("s3")
    client.create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    return client


def post(url: str, body: bytes = b"") -> None:
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(url, body, plain, method="POST")  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - the test's own server
        assert answer.status == 200


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def refused(data: str, scratch: Path, **options: Any) -> FlError:
    """The error of data that cannot be had; nothing of it stays."""
    with pytest.raises(FlError) as caught, folder_of(data, scratch, **options):
        raise AssertionError("the block was entered")
    assert list(scratch.iterdir()) == []
    assert caught.value.remedy
    return caught.value


def put(s3: Any, **objects: bytes) -> None:
    for key, body in objects.items():
        s3.put_object(Bucket=BUCKET, Key=key.replace("__", "/"), Body=body)


# --- a folder ---


def test_a_folder_is_used_as_it_is(tmp_path, scratch):
    with folder_of(str(tmp_path), scratch) as folder:
        assert folder == tmp_path
    assert tmp_path.is_dir()
    assert list(scratch.iterdir()) == []


def test_what_is_no_folder_is_named(tmp_path, scratch):
    (tmp_path / "rows.csv").touch()
    assert "does not exist" in refused(str(tmp_path / "absent"), scratch).message
    error = refused(str(tmp_path / "rows.csv"), scratch)
    assert error.message == f"data {str(tmp_path / 'rows.csv')!r} is no folder"
    assert isinstance(error, DataError)


def test_a_folder_needs_no_boto3(tmp_path, scratch, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with folder_of(str(tmp_path), scratch):
        pass
    error = refused(f"s3://{BUCKET}/silo", scratch)
    assert isinstance(error, DataError)
    assert error.remedy == "pip install 'fl-core[s3]'"


# --- S3 ---


@pytest.mark.parametrize("data", ["", "/", "/silo", "/silo/", "/silo/deep"])
def test_what_lies_below_the_prefix_is_fetched_and_removed(s3, scratch, data):
    big = os.urandom(3 * own_data.CHUNK_BYTES + 1)
    put(s3, silo__a=b"rows", silo__deep__b=big, silo__none=b"", other=b"no")
    put(s3, **{"silo-2__c": b"another silo's", "silo__": b""})
    wanted = {"silo/a": b"rows", "silo/deep/b": big, "silo/none": b""}
    wanted |= {"other": b"no", "silo-2/c": b"another silo's"}
    below = data.strip("/") + "/" if data.strip("/") else ""
    with folder_of(f"s3://{BUCKET}{data}", scratch) as folder:
        assert folder.parent == scratch
        assert folder.stat().st_mode & 0o777 == 0o700
        found = {
            str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
        }
    assert found == {
        key.removeprefix(below): body for key, body in wanted.items() if key.startswith(below)
    }
    assert list(scratch.iterdir()) == []


def test_the_copy_goes_after_an_error_too(s3, scratch):
    put(s3, silo__a=b"rows")
    with pytest.raises(KeyError), folder_of(f"s3://{BUCKET}/silo", scratch) as folder:
        raise KeyError((folder / "a").read_bytes())
    assert list(scratch.iterdir()) == []


def test_many_objects_are_listed_page_by_page(s3, scratch, monkeypatch):
    monkeypatch.setattr(own_data, "PAGE_OBJECTS", 3)
    put(s3, **{f"silo__{i}": b"x" for i in range(10)})
    with folder_of(f"s3://{BUCKET}/silo", scratch) as folder:
        assert len(list(folder.iterdir())) == 10
    monkeypatch.setattr(own_data, "MAX_OBJECTS", 9)
    assert "9 objects" in refused(f"s3://{BUCKET}/silo", scratch).message


def test_too_many_bytes_are_refused_before_one_is_taken(s3, scratch, monkeypatch):
    put(s3, silo__a=b"x" * 60, silo__b=b"x" * 41)
    monkeypatch.setattr(own_data, "_download", None)
    error = refused(f"s3://{BUCKET}/silo", scratch, max_bytes=100)
    assert isinstance(error, DataError)
    assert error.message.startswith(f"s3://{BUCKET}/silo/ holds over 100 bytes")


def test_a_disk_without_room_is_told_before_a_byte_is_taken(s3, scratch, monkeypatch):
    put(s3, silo__a=b"x" * 60)
    monkeypatch.setattr(own_data, "_download", None)
    monkeypatch.setattr(
        own_data.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 59})()
    )
    error = refused(f"s3://{BUCKET}/silo", scratch)
    assert isinstance(error, StorageError)
    assert "holds 60 bytes" in error.message
    assert "59 free" in error.message


@pytest.mark.parametrize(
    "key", ["../x", "a/../../x", "/x", "a//x", "./x", "a/.", "a/..", "..", "//etc/passwd"]
)
def test_a_name_that_leads_elsewhere_is_refused(key):
    with pytest.raises(DataError, match="no path below the prefix") as caught:
        own_data._check_name(Path("folder"), f"s3://{BUCKET}/silo/{key}", key, {key})
    assert BUCKET in caught.value.message


def test_such_a_name_is_refused_before_a_byte_is_taken(s3, scratch, monkeypatch):
    put(s3, **{"silo__a": b"x", "silo__z____x": b"x"})
    monkeypatch.setattr(own_data, "_download", None)
    assert "'s3://hospital-rows/silo/z//x'" in refused(f"s3://{BUCKET}/silo", scratch).message


def test_an_object_below_another_is_refused(s3, scratch):
    put(s3, silo__a=b"x", silo__a__b=b"x")
    error = refused(f"s3://{BUCKET}/silo", scratch)
    assert "silo/a/b'" in error.message
    assert "has the name of its folder" in error.message


def test_an_object_that_changes_meanwhile_is_refused(s3, scratch, monkeypatch):
    put(s3, silo__a=b"old")
    listed = own_data._listed

    def then_changed(*args: Any) -> Any:
        found = listed(*args)
        put(s3, silo__a=b"new and longer")
        return found

    monkeypatch.setattr(own_data, "_listed", then_changed)
    error = refused(f"s3://{BUCKET}/silo", scratch)
    assert error.message == f"s3://{BUCKET}/silo/a changed while it was read"


@pytest.mark.parametrize("data", ["/absent", "/silo/a", "/sil"])
def test_a_prefix_with_nothing_below_it_is_told(s3, scratch, data):
    put(s3, silo__a=b"x")
    error = refused(f"s3://{BUCKET}{data}", scratch)
    assert error.message == f"no object lies below s3://{BUCKET}{data}/"


def test_a_bucket_that_is_not_there_is_told(s3, scratch):
    error = refused("s3://no-such-bucket/silo", scratch)
    assert isinstance(error, DataError)
    assert error.message == "s3://no-such-bucket/silo/: there is no such bucket"


@pytest.mark.parametrize("data", ["s3://", "s3:///silo", "s3://A_B/silo", "s3://x/silo"])
def test_what_is_no_buckets_name_is_told(scratch, data):
    error = refused(data, scratch)
    assert "is no bucket's name" in error.message
    assert "s3://BUCKET/PREFIX" in error.remedy


def test_missing_credentials_are_told(s3, scratch, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = refused(f"s3://{BUCKET}/silo", scratch)
    assert isinstance(error, DataError)
    assert error.message.startswith(f"s3://{BUCKET}/silo/: no credentials")
    assert "Pod Identity" in error.remedy


def test_settings_that_name_no_profile_are_told(s3, scratch, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "absent")
    assert "absent" in refused(f"s3://{BUCKET}/silo", scratch).message


@pytest.fixture
def reader(server: str, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes the service check rights, of a user who has those that a test gives."""
    put(s3, silo__a=b"rows", other__b=b"rows")
    iam = boto3.client("iam", endpoint_url=server)
    iam.create_user(UserName="agent")
    key = iam.create_access_key(UserName="agent")["AccessKey"]

    def may(*actions: str) -> None:
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        iam.put_user_policy(
            UserName="agent",
            PolicyName="own",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
        )
        post(f"{server}/moto-api/reset-auth", b"0")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    yield may
    post(f"{server}/moto-api/reset-auth", b"inf")


def test_the_rights_that_the_remedy_names_are_enough(reader, scratch):
    reader("s3:ListBucket", "s3:GetObject")
    with folder_of(f"s3://{BUCKET}/silo", scratch) as folder:
        assert (folder / "a").read_bytes() == b"rows"


@pytest.mark.parametrize(
    ("right", "named"), [("s3:GetObject", "silo/"), ("s3:ListBucket", "silo/a")]
)
def test_a_right_that_is_missing_is_told(reader, scratch, right, named):
    reader(right)
    error = refused(f"s3://{BUCKET}/silo", scratch)
    assert isinstance(error, DataError)
    assert error.message.startswith(f"s3://{BUCKET}/{named}: access denied")
    assert "s3:ListBucket" in error.remedy


def test_credentials_that_are_not_known_are_told(reader, scratch, monkeypatch):
    reader("s3:ListBucket", "s3:GetObject")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN000000000")
    error = refused(f"s3://{BUCKET}/silo", scratch)
    assert "does not take the credentials (InvalidAccessKeyId)" in error.message


def test_an_endpoint_that_is_not_there_is_told(scratch, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    error = refused(f"s3://{BUCKET}/silo", scratch)
    assert isinstance(error, DataError)
    assert error.message.startswith(f"s3://{BUCKET}/silo/: the endpoint does not answer")


def test_an_endpoint_that_says_nothing_is_told(scratch, monkeypatch):
    monkeypatch.setattr(own_data, "READ_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{listener.getsockname()[1]}")
        error = refused(f"s3://{BUCKET}/silo", scratch)
    assert "the endpoint does not answer" in error.message


def test_an_object_that_breaks_off_is_tried_again(s3, scratch, monkeypatch):

    put(s3, silo__a=b"rows")
    monkeypatch.setattr(own_data.time, "sleep", lambda seconds: None)
    tries = []
    write = own_data._write

    def breaks_off(*args: Any) -> None:
        tries.append(args)
        if len(tries) < own_data.ATTEMPTS:
            broken_off(args[0])
        write(*args)

    monkeypatch.setattr(own_data, "_write", breaks_off)
    with folder_of(f"s3://{BUCKET}/silo", scratch) as folder:
        assert (folder / "a").read_bytes() == b"rows"
    tries[:] = []
    monkeypatch.setattr(own_data, "ATTEMPTS", 1)
    monkeypatch.setattr(own_data, "_write", lambda answer, *rest: broken_off(answer))
    assert "s3://hospital-rows/silo/a: " in refused(f"s3://{BUCKET}/silo", scratch).message


def broken_off(answer: Any) -> None:
    from botocore.exceptions import IncompleteReadError

    answer["Body"].close()  # as the code under test does; its socket would outlive the test
    raise IncompleteReadError(actual_bytes=1, expected_bytes=4)


def test_a_scratch_folder_that_cannot_hold_an_object_is_told(s3, scratch):
    put(s3, **{f"silo__{'a' * 300}": b"x"})
    error = refused(f"s3://{BUCKET}/silo", scratch)
    assert isinstance(error, StorageError)
    assert "cannot write" in error.message


def test_a_scratch_folder_that_is_not_there_is_told(tmp_path):
    with (
        pytest.raises(StorageError, match="No such file"),
        folder_of(f"s3://{BUCKET}/x", tmp_path / "no"),
    ):
        pass


def test_what_a_killed_process_has_left_behind_is_removed(tmp_path):
    left = tmp_path / "data-abc"
    left.mkdir()
    (left / "north.csv").write_text("age,disease\n41,no\n")
    (tmp_path / "log.txt").write_text("kept")
    own_data.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]
