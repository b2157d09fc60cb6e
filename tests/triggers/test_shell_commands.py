"""The commands that the admin shows are run in a real shell, and what they would send is verified."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import pytest

from triggers import signatures
from triggers.signatures import SignatureConfigError

ZOOM = {
    "header": "x-zm-signature",
    "prefix": "v0=",
    "template": "v0:{timestamp}:{body}",
    "timestamp_header": "x-zm-request-timestamp",
}
HOSTILE = {"header": "x-s", "prefix": '"$(id)`id`\\', "template": '$(id)`id`"\\%s{body}', "encoding": "base64url"}
MILLISECONDS = {
    "header": "x-s",
    "algorithm": "sha512",
    "template": "{id}.{timestamp}.{body}",
    "timestamp_header": "x-t",
    "timestamp_unit": "ms",
    "id_header": "x-id",
    "secret_encoding": "base64",
}
HEX = {"header": "x-s", "secret_encoding": "hex"}
#: Stands in for curl: it tells what it would have sent.
CURL = f"curl() {{ {sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\"; }}\n"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the commands are for machines with openssl")
@pytest.mark.parametrize(
    ("scheme", "config", "secret"),
    [
        *((name, {}, None) for name in signatures.SCHEMES if name != "hmac"),
        ("api_key", {"header": "X-Token"}, None),
        ("hmac", ZOOM, None),
        ("hmac", HOSTILE, "with 'quotes' and $signs"),
        ("hmac", MILLISECONDS, "c2VjcmV0LXRoYXQtaXMtbG9uZw=="),
        ("hmac", HEX, "00ff" * 8),
    ],
)
def test_what_the_commands_send_is_verified(scheme: str, config: dict[str, Any], secret: str | None) -> None:
    secret = secret or signatures.new_secret(scheme)
    script = signatures.shell_command(scheme, url="https://example.org/hooks/a'b", config=config)
    first, rest = script.split("\n", 1)
    assert first.startswith("SECRET=")
    run = subprocess.run(
        ["sh", "-c", CURL + rest], env={"SECRET": secret, "PATH": "/usr/bin:/bin"}, capture_output=True, check=True
    )
    arguments = json.loads(run.stdout)
    headers = dict(text.split(": ", 1) for sign, text in pairwise(arguments) if sign == "-H")
    body = arguments[arguments.index("--data-binary") + 1].encode()
    assert arguments[-1] == "https://example.org/hooks/a'b"
    verdict = signatures.verify(scheme, headers=headers, body=body, secrets=[secret], now=time.time(), config=config)
    assert verdict.ok, verdict


def test_settings_that_make_no_sense_have_no_commands() -> None:
    with pytest.raises(SignatureConfigError):
        signatures.shell_command("hmac", url="https://example.org")
