"""HOST:PORT: taken apart, or refused with a sentence."""

import string

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core.cli.address import Address

labels = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=20)
hosts = st.one_of(
    st.lists(labels, min_size=1, max_size=4).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)


def convert(value: str | tuple[str, int]) -> tuple[str, int]:
    return Address().convert(value, None, None)


@given(hosts, st.integers(0, 65535))
def test_host_and_port_are_what_stands_there(host, port):
    assert convert(f"{host}:{port}") == (host, port)


def test_what_has_been_taken_apart_stays_as_it_is():
    assert convert(("127.0.0.1", 8440)) == ("127.0.0.1", 8440)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ":",
        "host",
        "host:",
        ":8440",
        "8440",
        "host:port",
        "host:65536",
        "host:99999999999",
        "host:-1",
        "host:+1",
        "host: 1",
        "host:1 ",
        "host:1.0",
        "host:0x10",
        "host:1_0",
        "host:\u0663",
        "host:\u00b2",
        "host:1\n",
        "[::1]",
        "[::1]8440",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(value):
    with pytest.raises(click.BadParameter) as caught:
        convert(value)
    assert f"{value!r} is not HOST:PORT, such as 127.0.0.1:8440" in caught.value.message


@pytest.mark.parametrize(
    "value",
    [
        "::1",
        "::1:8440",
        "fe80::1:8440",
        "[::1:8440",
        "::1]:8440",
        "http://host:8440",
        "host/path:8440",
        "user@host:8440",
        "two words:8440",
        " host:8440",
        " :8440",
        "host\n:8440",
        "host:8440:8441",
    ],
)
def test_a_host_is_a_name_or_an_ip_address_and_an_ipv6_one_stands_in_brackets(value):
    with pytest.raises(click.BadParameter):
        convert(value)


def test_a_port_of_many_digits_is_refused():
    with pytest.raises(click.BadParameter):
        convert("host:" + "9" * 5000)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(value):
    try:
        host, port = convert(value)
    except click.BadParameter:
        return
    assert host
    assert 0 <= port <= 65535
    assert value.startswith(f"{host}:")
