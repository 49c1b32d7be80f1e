"""``fl certs``: a federation's files made on the command line, whole or not at all."""

import io
import json
import os
from pathlib import Path

import pytest

from fl_core.cli import main
from fl_core.cli.certs import MAX_BYTES
from fl_core.transport.identity import CA_FILE, CERTIFICATE_FILE, KEY_FILE, Identity
from tests.integration.conftest import Fl, Outcome

FILES = (CERTIFICATE_FILE, KEY_FILE, CA_FILE)
WRONG_CALL, STORAGE, CERTIFICATE = 2, 18, 19


@pytest.fixture
def fl(capfd, tmp_path, monkeypatch) -> Fl:
    """``fl`` in a folder of the test's own; ``stdin`` is what is piped into it."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path, stdin: str = "") -> Outcome:
        capfd.readouterr()
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "PRIVATE KEY" not in out + err
        return Outcome(int(exit_info.value.code or 0), out, err)

    return call


@pytest.fixture
def issued(fl) -> Fl:
    """With the authority of ``trial`` in the default folder."""
    assert fl("certs", "authority", "trial").code == 0
    return fl


def made(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, and every folder as the empty bytes."""
    return {
        path.relative_to(folder).as_posix(): b"" if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def refused(outcome: Outcome, code: int, *said: str) -> None:
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    for words in said:
        assert words in outcome.err


def as_json(folder: Path) -> str:
    """An identity as Pulumi prints it."""
    return json.dumps({name: (folder / name).read_text() for name in FILES}, indent=4)


@pytest.fixture
def good(issued, tmp_path) -> dict[str, str]:
    """The parts of an operator's identity; its folder is gone."""
    assert issued("certs", "issue", "operator", "ann").code == 0
    parts = json.loads(as_json(tmp_path / "ann"))
    for name in FILES:
        (tmp_path / "ann" / name).unlink()
    (tmp_path / "ann").rmdir()
    return parts


def test_an_authority_and_its_parties_are_made(issued, tmp_path):
    for arguments, kind, uri in (
        (["aggregator"], "aggregator", "spiffe://trial/aggregator"),
        (["silo", "north"], "silo", "spiffe://trial/silo/north"),
        (["operator", "ann"], "operator", "spiffe://trial/operator/ann"),
    ):
        outcome = issued("certs", "issue", *arguments)
        assert outcome.code == 0, outcome.err
        identity = Identity.load(tmp_path / arguments[-1], kind)
        assert identity.party.uri == uri
        assert f"{uri} in {arguments[-1]}, valid until {identity.last:%Y-%m-%d}" in outcome.out
        assert f"certificate SHA-256 {identity.fingerprint}" in outcome.out
    assert {path.name for path in tmp_path.iterdir()} == {"authority", "aggregator", "north", "ann"}


def test_what_is_made_is_for_its_owner_whatever_the_umask(fl, tmp_path):
    old = os.umask(0)
    try:
        fl("certs", "authority", "trial")
        fl("certs", "issue", "silo", "a")
        fl("certs", "save", "b", stdin=as_json(tmp_path / "a"))
    finally:
        os.umask(old)
    for folder, key in (("authority", "ca.key"), ("a", KEY_FILE), ("b", KEY_FILE)):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700
        assert (tmp_path / folder / key).stat().st_mode & 0o777 == 0o600


def test_the_authoritys_folder_and_its_secret_are_named(fl, tmp_path):
    outcome = fl("certs", "authority", "trial", "--authority", "deep/ca", "--days", "30")
    assert outcome.code == 0, outcome.err
    assert "authority of trial in deep/ca; keep deep/ca/ca.key secret" in outcome.out
    outcome = fl("certs", "issue", "silo", "a", "--authority", "deep/ca", "--out", "x/y")
    assert outcome.code == 0, outcome.err
    assert Identity.load(tmp_path / "x" / "y", "silo").party.name == "a"


def test_what_was_issued_is_saved_from_json(issued, tmp_path):
    issued("certs", "issue", "operator", "ann")
    outcome = issued("certs", "save", "copy", stdin=as_json(tmp_path / "ann"))
    assert outcome.code == 0, outcome.err
    saved = Identity.load(tmp_path / "copy", "operator")
    assert saved == Identity.load(tmp_path / "ann", "operator")
    assert f"spiffe://trial/operator/ann in copy, certificate SHA-256 {saved.fingerprint}" in (
        outcome.out
    )


BAD_NAMES = [
    "",
    "A",
    "a_b",
    "a.b",
    "a b",
    "a-",
    "a/b",
    "../a",
    ".",
    "\u00e9",
    "a\n",
    "a" * 64,
    "aggregator",
    "pooled",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused_and_nothing_is_made(issued, tmp_path, name):
    before = made(tmp_path)
    refused(issued("certs", "authority", name, "--authority", "other"), WRONG_CALL, "lower-case")
    for kind in ("silo", "operator"):
        refused(issued("certs", "issue", kind, name), WRONG_CALL, repr(name), "lower-case")
    assert made(tmp_path) == before


@pytest.mark.parametrize("name", ["0", "a", "a-b", "a" * 63])
def test_every_name_that_is_allowed_makes_a_federation(fl, tmp_path, name):
    outcome = fl("certs", "authority", name)
    assert outcome.code == 0, outcome.err
    outcome = fl("certs", "issue", "silo", name)
    assert outcome.code == 0, outcome.err
    assert Identity.load(tmp_path / name, "silo").party.uri == f"spiffe://{name}/silo/{name}"


@pytest.mark.parametrize(
    "arguments",
    [
        "authority",
        "authority trial --days 0",
        "authority trial --days 3651",
        "authority trial --days x",
        "authority trial other",
        "issue",
        "issue silo",
        "issue operator",
        "issue aggregator a",
        "issue owner a",
        "issue silo a b",
        "issue silo a --days 0",
        "save",
        "save a b",
        "revoke a",
    ],
)
def test_a_wrong_call_is_refused_and_nothing_is_made(issued, tmp_path, arguments):
    before = made(tmp_path)
    refused(issued("certs", *arguments.split()), WRONG_CALL, "Usage: fl certs")
    assert made(tmp_path) == before


def test_without_an_authority_nothing_is_issued(fl, tmp_path):
    refused(fl("certs", "issue", "silo", "a"), CERTIFICATE, "authority/ca.crt: No such file")
    assert made(tmp_path) == {}


def test_a_key_that_is_open_to_all_issues_nothing(issued, tmp_path):
    (tmp_path / "authority" / "ca.key").chmod(0o644)
    refused(issued("certs", "issue", "silo", "a"), CERTIFICATE, "chmod 600 authority/ca.key")
    assert not (tmp_path / "a").exists()


def test_what_is_there_is_kept(issued, tmp_path):
    issued("certs", "issue", "silo", "a")
    before = made(tmp_path)
    refused(issued("certs", "authority", "trial"), CERTIFICATE, "exists already")
    refused(issued("certs", "issue", "silo", "a"), CERTIFICATE, "a/tls.key exists already")
    refused(issued("certs", "issue", "operator", "a"), CERTIFICATE, "exists already")
    saved = issued("certs", "save", "a", stdin=as_json(tmp_path / "a"))
    refused(saved, CERTIFICATE, "exists already")
    assert made(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    ["issue silo b --out a", "issue silo b --out authority", "authority other --authority a"],
)
def test_a_folder_of_something_else_gets_no_key(issued, tmp_path, arguments):
    issued("certs", "issue", "silo", "a")
    (tmp_path / "a" / KEY_FILE).unlink()
    before = made(tmp_path)
    refused(issued("certs", *arguments.split()), CERTIFICATE, "exists already")
    assert made(tmp_path) == before


@pytest.mark.parametrize(
    "arguments", ["authority trial --authority file/x", "issue silo a --out file/x", "save file/x"]
)
def test_a_place_that_cannot_be_written_is_refused(issued, good, tmp_path, arguments):
    (tmp_path / "file").write_text("")
    outcome = issued("certs", *arguments.split(), stdin=json.dumps(good))
    refused(outcome, STORAGE, "cannot write file/x")


@pytest.mark.parametrize(
    "stdin",
    [
        "",
        "{",
        "null",
        "[]",
        '"text"',
        "{}",
        '{"tls.crt": "", "tls.key": ""}',
        '{"tls.crt": 1, "tls.key": 2, "ca.crt": 3}',
        '{"tls.crt": null, "tls.key": null, "ca.crt": null}',
        '{"tls.crt": "\\ud800", "tls.key": "", "ca.crt": ""}',
        "[" * 100_000,
        '{"tls.crt": "' + "x" * MAX_BYTES + '", "tls.key": "", "ca.crt": ""}',
    ],
    ids=lambda stdin: stdin[:12] or "nothing",
)
def test_what_is_no_identity_is_not_saved(fl, tmp_path, stdin):
    refused(
        fl("certs", "save", "a", stdin=stdin),
        CERTIFICATE,
        "standard input holds no identity",
        '{"tls.crt": ..., "tls.key": ..., "ca.crt": ...}',
    )
    assert made(tmp_path) == {}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("value", ["", "junk", "-----BEGIN CERTIFICATE-----\n"])
def test_a_part_that_is_no_pem_is_not_saved(issued, good, tmp_path, name, value):
    before = made(tmp_path)
    refused(issued("certs", "save", "a", stdin=json.dumps({**good, name: value})), CERTIFICATE)
    assert made(tmp_path) == before


def test_parts_that_do_not_belong_together_are_not_saved(issued, good, tmp_path):
    issued("certs", "issue", "operator", "bob")
    issued("certs", "authority", "trial", "--authority", "other")
    before = made(tmp_path)
    for changed in (
        {KEY_FILE: (tmp_path / "bob" / KEY_FILE).read_text()},
        {CA_FILE: (tmp_path / "other" / CA_FILE).read_text()},
        {CERTIFICATE_FILE: good[CA_FILE]},
        {KEY_FILE: good[CERTIFICATE_FILE], CERTIFICATE_FILE: good[KEY_FILE]},
    ):
        refused(issued("certs", "save", "a", stdin=json.dumps(good | changed)), CERTIFICATE)
        assert made(tmp_path) == before


def test_more_than_the_three_parts_may_be_given(issued, good, tmp_path):
    outcome = issued("certs", "save", "a", stdin=json.dumps(good | {"urn": 1}))
    assert outcome.code == 0, outcome.err
    assert {path.name for path in (tmp_path / "a").iterdir()} == set(FILES)
