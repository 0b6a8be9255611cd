"""Where a bucket's requests go: the address as it may be shown, and the setting that names it."""

import os
from urllib.parse import urlsplit

AMAZONS = (".amazonaws.com", ".amazonaws.com.cn")
_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_DOCTOR = "deepfm doctor tries the store step by step."


def shown(url: str) -> str:
    """Scheme, host and port of a URL; what else it holds may be a credential."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def setting_of(endpoint: str) -> str:
    """The setting that an address (as shown) comes from; Amazon's own follows from the region."""
    for name in _VARIABLES:
        # Which of them is in force, and whether any is, botocore decides: the address tells.
        if (url := os.environ.get(name)) and shown(url) == endpoint:
            return name
    return "AWS_DEFAULT_REGION" if endpoint.endswith(AMAZONS) else "endpoint_url in the AWS config file"


def where_to_look(endpoint: str) -> str:
    """The next step where nothing could be connected to."""
    setting = setting_of(endpoint)
    if setting in _VARIABLES:
        return f"Check {setting}, which names this address, the network, and whether the server runs. {_DOCTOR}"
    other = "; for a server other than Amazon's set AWS_ENDPOINT_URL" if endpoint.endswith(AMAZONS) else ""
    return f"Check the network and {setting}{other}. {_DOCTOR}"


def another_server(endpoint: str) -> str:
    """The next step where something answers that is no S3 server."""
    return f"Check {setting_of(endpoint)}: a server's web console has another port. {_DOCTOR}"
