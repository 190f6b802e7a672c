"""AWS for tests: moto's server, which real boto3 reaches over HTTP. It holds secrets, parameters and ECS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3  # type: ignore[import-untyped]
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret"}


class AWS:
    """An account at `url`, empty at first. Who asks it needs `environment`."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be in this account."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        } | _CREDENTIALS

    def client(self, service: str) -> Any:
        """boto3's client of a service."""
        key, secret = _CREDENTIALS.values()
        return boto3.client(service, REGION, endpoint_url=self.url, aws_access_key_id=key, aws_secret_access_key=secret)

    def secret(self, name: str, value: str) -> str:
        """The ARN of a new secret."""
        return str(self.client("secretsmanager").create_secret(Name=name, SecretString=value)["ARN"])

    def parameter(self, name: str, value: str) -> str:
        """The ARN of a new encrypted parameter."""
        parameters = self.client("ssm")
        parameters.put_parameter(Name=name, Value=value, Type="SecureString")
        return str(parameters.get_parameter(Name=name)["Parameter"]["ARN"])


@contextmanager
def aws_server() -> Iterator[AWS]:
    """A server as long as the block lasts."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield AWS(f"http://{host}:{port}")
    finally:
        server.stop()
