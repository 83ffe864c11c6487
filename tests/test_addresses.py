"""Addresses as text: the quick way says what the slow one does."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.addresses import ip_text


@given(st.ip_addresses())
def test_any_address(address: IPv4Address | IPv6Address) -> None:
    assert ip_text(address) == str(address)


@pytest.mark.parametrize("text", ["fe80::1%eth0", "fe80::1%wlan0", "fe80::1"])
def test_the_interface_of_an_address_stays(text: str) -> None:
    assert ip_text(ip_address(text)) == text
