"""Which addresses a store's requests may go to."""

import socket

import pytest

from deepfm.errors import ConfigError
from deepfm.storage.s3_endpoint import require_allowed

ADDRESSES = {
    "s3.example.com": ["203.0.113.7"],
    "two.example.com": ["203.0.113.7", "fe80::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "rebound.example.com": ["169.254.169.254"],
    "seaweedfs": ["10.0.0.7"],
    "ec2-169-254-169-254.compute-1.amazonaws.com": ["169.254.169.254"],
    "localhost": ["127.0.0.1", "::1"],
    "half.example.com": ["127.0.0.1", "203.0.113.7"],
}
LINK_LOCAL = "its host is link-local"
PLAIN = "http leaves this machine unencrypted"
NO_URL = "only http and https URLs with a host are"
REFUSED = {
    "http://169.254.169.254": LINK_LOCAL,
    "https://169.254.169.254": LINK_LOCAL,
    "http://169.254.169.254:80/latest/meta-data/": LINK_LOCAL,
    "http://169.254.170.2": LINK_LOCAL,
    "http://169.254.0.1:9000": LINK_LOCAL,
    "http://user:word@169.254.169.254": LINK_LOCAL,
    "http://2852039166": LINK_LOCAL,
    "http://0xA9FEA9FE": LINK_LOCAL,
    "http://0xa9.0xfe.0xa9.0xfe": LINK_LOCAL,
    "http://0251.0376.0251.0376": LINK_LOCAL,
    "http://169.254.43518": LINK_LOCAL,
    "http://[fe80::1]": LINK_LOCAL,
    "https://[fe80::1%25eth0]:9000": LINK_LOCAL,
    "http://[::ffff:169.254.169.254]": LINK_LOCAL,
    "http://[::ffff:a9fe:a9fe]": LINK_LOCAL,
    "http://[64:ff9b::a9fe:a9fe]": LINK_LOCAL,
    "http://[2002:a9fe:a9fe::1]": LINK_LOCAL,
    "http://[fd00:ec2::254]": LINK_LOCAL,
    "http://metadata.google.internal": LINK_LOCAL,
    "https://rebound.example.com": LINK_LOCAL,
    "https://two.example.com": LINK_LOCAL,
    "http://s3.us-east-1.amazonaws.com": PLAIN,
    "http://ec2-169-254-169-254.compute-1.amazonaws.com": LINK_LOCAL,
    "http://s3.example.com": PLAIN,
    "http://s3.example.com:9000": PLAIN,
    "http://seaweedfs:8333": PLAIN,
    "http://203.0.113.7": PLAIN,
    "http://half.example.com": PLAIN,
    "http://0.0.0.0:8333": PLAIN,
    "http://nobody-knows.example.com": PLAIN,
    "http://127.0.0.1.example.com": PLAIN,
    "http://localhost@s3.example.com": PLAIN,
    "file:///etc/passwd": NO_URL,
    "file://localhost/etc/passwd": NO_URL,
    "ftp://s3.example.com": NO_URL,
    "gopher://127.0.0.1:70": NO_URL,
    "s3.example.com": NO_URL,
    "//s3.example.com": NO_URL,
    "https://": NO_URL,
    "https:///bucket": NO_URL,
    "javascript:alert(1)": NO_URL,
    "": NO_URL,
}
ALLOWED = [
    "https://s3.example.com",
    "https://203.0.113.7:9000",
    "https://nobody-knows.example.com",
    "https://seaweedfs:8333",
    "https://s3.eu-west-1.amazonaws.com",
    "http://127.0.0.1:8333",
    "http://127.8.8.8",
    "http://2130706433:8333",
    "http://localhost:8333",
    "http://[::1]:8333",
]


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """Names are looked up in a table, and addresses are read as the system reads them."""
    ask = socket.getaddrinfo

    def look_up(host, port, **options):
        found = ADDRESSES.get(host)
        if found is not None:
            return [(0, 0, 0, "", (address, 0)) for address in found]
        return ask(host, port, flags=socket.AI_NUMERICHOST, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.delenv("DEEPFM_ALLOW_HTTP", raising=False)


@pytest.mark.parametrize("url", REFUSED)
def test_an_address_that_is_not_allowed_is_refused_in_one_line(url):
    with pytest.raises(ConfigError, match="endpoint of the store is not allowed") as caught:
        require_allowed(url)
    assert caught.value.observed == REFUSED[url]
    assert caught.value.next_step
    assert "word" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ALLOWED)
def test_a_servers_own_address_is_allowed(url):
    require_allowed(url)


@pytest.mark.parametrize("url", REFUSED)
def test_http_can_be_allowed_and_nothing_else(monkeypatch, url):
    monkeypatch.setenv("DEEPFM_ALLOW_HTTP", "1")
    if REFUSED[url] == PLAIN:
        require_allowed(url)
    else:
        with pytest.raises(ConfigError):
            require_allowed(url)


@pytest.mark.parametrize("value", ["0", "true", ""])
def test_http_is_allowed_by_one_value_only(monkeypatch, value):
    monkeypatch.setenv("DEEPFM_ALLOW_HTTP", value)
    with pytest.raises(ConfigError, match="DEEPFM_ALLOW_HTTP=1"):
        require_allowed("http://seaweedfs:8333")
