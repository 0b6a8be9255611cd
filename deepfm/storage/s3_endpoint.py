"""Where a bucket's requests go: which addresses are allowed, and how one is shown with the setting that names it."""

import ipaddress
import os
import re
import socket
from urllib.parse import urlsplit

from deepfm.errors import ConfigError

ALLOW_HTTP = "DEEPFM_ALLOW_HTTP"
"""Set to 1, requests may leave the machine without TLS."""
_AMAZONS = (".amazonaws.com", ".amazonaws.com.cn")
_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_USERINFO = re.compile(r"(?<=//)[^/\s]*@")
_DOCTOR = "deepfm doctor tries the store step by step."
_METADATA = ipaddress.ip_address("fd00:ec2::254")
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def require_allowed(endpoint: str) -> None:
    """The address is one that requests may go to.

    Link-local addresses are where clouds hand out the credentials of a machine; whoever can make a service talk to one
    reads them. Without TLS anybody on the way reads the clicks and changes the models.

    Raises:
        ConfigError: terminal; its scheme is neither http nor https, its host is link-local, or it is http, not of this
            machine and `DEEPFM_ALLOW_HTTP` is not 1.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _refused(endpoint, "only http and https URLs with a host are", "Write it as https://HOST:PORT.")
    if is_amazons(endpoint) and parts.scheme == "https":
        return
    addresses = _addresses(parts.hostname)
    if any(_is_link_local(address) for address in addresses):
        raise _refused(endpoint, "its host is link-local", "Name the server's own address.")
    here = bool(addresses) and all(address.is_loopback for address in addresses)
    if parts.scheme == "http" and not here and os.environ.get(ALLOW_HTTP) != "1":
        step = f"Use https, or set {ALLOW_HTTP}=1 where the network between is your own."
        raise _refused(endpoint, "http leaves this machine unencrypted", step)


def is_amazons(endpoint: str) -> bool:
    """Whether it is one of Amazon's own."""
    return (urlsplit(endpoint).hostname or "").endswith(_AMAZONS)


def shown(url: str) -> str:
    """Scheme, host and port of a URL; what else it holds may be a credential."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def without_userinfo(cause: Exception) -> Exception:
    """The error itself, in whose text addresses have lost what may be a credential: a traceback shows causes too."""
    cause.args = tuple(_USERINFO.sub("", part) if isinstance(part, str) else part for part in cause.args)
    return cause


def setting_of(endpoint: str) -> str:
    """The setting that an address (as shown) comes from; Amazon's own follows from the region."""
    for name in _VARIABLES:
        # Which of them is in force, and whether any is, botocore decides: the address tells.
        if (url := os.environ.get(name)) and shown(url) == endpoint:
            return name
    return "AWS_DEFAULT_REGION" if is_amazons(endpoint) else "endpoint_url in the AWS config file"


def where_to_look(endpoint: str) -> str:
    """The next step where nothing could be connected to."""
    setting = setting_of(endpoint)
    if setting in _VARIABLES:
        return f"Check {setting}, which names this address, the network, and whether the server runs. {_DOCTOR}"
    other = "; for a server other than Amazon's set AWS_ENDPOINT_URL" if is_amazons(endpoint) else ""
    return f"Check the network and {setting}{other}. {_DOCTOR}"


def another_server(endpoint: str) -> str:
    """The next step where something answers that is no S3 server."""
    return f"Check {setting_of(endpoint)}: a server's web console has another port. {_DOCTOR}"


def _addresses(host: str) -> list[Address]:
    """What a host stands for, in whatever way it is written; empty if nobody knows, which the connection will tell."""
    try:
        found = socket.getaddrinfo(host.partition("%")[0], None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        return []
    return [ipaddress.ip_address(entry[4][0]) for entry in found]


def _is_link_local(address: Address) -> bool:
    """Also if it is an IPv4 address within one of IPv6; Amazon's metadata have one address that is not link-local."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_link_local
    return address.is_link_local or address == _METADATA


def _refused(endpoint: str, why: str, next_step: str) -> ConfigError:
    where = ascii(shown(endpoint))[1:-1][:160]
    return ConfigError(
        "endpoint of the store is not allowed",
        observed=why,
        where=f"{where} (by {setting_of(shown(endpoint))})",
        next_step=next_step,
    )
