"""The monitor that records is one to rely on."""

from __future__ import annotations

import pulumi
import pulumi_tls as tls
import pytest

from .conftest import Config
from .recording import UNKNOWN, Secret, record


def _key(name: str = "one") -> tls.PrivateKey:
    return tls.PrivateKey(name, algorithm="ED25519")


def test_a_resource_that_is_registered_twice_is_refused():
    def program() -> None:
        _key()
        _key()

    with pytest.raises(AssertionError, match="registered twice"):
        record({}, program=program)


def test_a_default_provider_is_seen():
    assert record({}, program=_key).of("PrivateKey").provider == ""


def test_what_a_provider_keeps_secret_is_secret():
    def program() -> None:
        pulumi.export("key", _key().private_key_pem)

    assert record({}, program=program).outputs == {"key": Secret("KEY OF one")}


def test_a_first_preview_knows_no_outputs():
    def program() -> None:
        pulumi.export("key", _key().private_key_pem)

    assert UNKNOWN in repr(record({}, preview=True, program=program).outputs)


def test_errors_after_the_program_are_raised():
    def program() -> None:
        _key().private_key_pem.apply(lambda pem: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        record({}, program=program)


def test_runs_do_not_see_each_other(federation: Config):
    with pytest.raises(pulumi.RunError):
        record({})
    assert len(record(federation).resources) > 40
    with pytest.raises(pulumi.RunError):
        record({})
