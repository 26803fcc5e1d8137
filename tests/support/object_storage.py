"""Object storage on this machine that speaks S3: moto's server, which holds requests to the policies of their user."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
import httpx
from moto.server import ThreadedMotoServer

BUCKET = "datasets"
REGION = "us-east-1"
READ = ("s3:GetObject", "s3:ListBucket")
WRITE = (*READ, "s3:PutObject")
"""What a run needs. Nothing in a dataset is ever deleted."""


@dataclass
class ObjectStorage:
    """A running server with an empty bucket."""

    url: str

    def environment(self, *actions: str) -> dict[str, str]:
        """What a process of a new user's finds in its environment, who may do these actions and no others."""
        self._hold_to_policies(False)
        iam = self._iam
        name = f"user-{len(iam.list_users()['Users'])}"
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": [*actions], "Resource": "*"}]}
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="may", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self._hold_to_policies(True)
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }

    def objects(self) -> dict[str, str]:
        """The hash of every object, by its key."""
        self._hold_to_policies(False)
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        found = {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", [])}
        self._hold_to_policies(True)
        return found

    def put(self, key: str, content: bytes) -> None:
        """Let somebody else put an object there."""
        self._hold_to_policies(False)
        self._s3.put_object(Bucket=BUCKET, Key=key, Body=content)
        self._hold_to_policies(True)

    def empty(self) -> None:
        """Forget all users and objects, and make the bucket."""
        httpx.post(f"{self.url}/moto-api/reset").raise_for_status()
        self._hold_to_policies(False)
        self._s3.create_bucket(Bucket=BUCKET)
        self._hold_to_policies(True)

    def _hold_to_policies(self, held: bool) -> None:
        # How many requests pass before it begins: it takes a number, or what Python takes for infinity.
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"0" if held else b"inf").raise_for_status()

    @cached_property
    def _s3(self) -> Any:
        return self._client("s3")

    @cached_property
    def _iam(self) -> Any:
        return self._client("iam")

    def _client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "root", "aws_secret_access_key": "root"}
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **keys)


@contextmanager
def serve() -> Iterator[ObjectStorage]:
    """A server on a free port of this machine."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield ObjectStorage(f"http://{host}:{port}")
    finally:
        server.stop()
