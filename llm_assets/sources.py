"""Where the files of documents are: in a folder or in a bucket, found by a path with `{partition}` and `*`."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llm_assets.errors import DocumentsError

PARTITION = "{partition}"
IN_BUCKET = "s3://"


@dataclass(frozen=True, slots=True, order=True)
class SourceFile:
    """A file: its whole name, what stands in the path's place of `{partition}`, and when it was written (seconds since
    1970).
    """

    name: str
    partition: str
    written: float


class Place(Protocol):
    """Somewhere that files are. Raises DocumentsError for what cannot be had."""

    def found(self, path: str, partition: str | None = None) -> Iterator[SourceFile]:
        """The files that the path means, of one partition or of all."""

    def at_hand(self, file: SourceFile, scratch: Path) -> Path:
        """The file on this machine's disk: itself, or a copy in `scratch`."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Files in a folder of this machine; paths are relative to it."""

    base: Path

    def found(self, path: str, partition: str | None = None) -> Iterator[SourceFile]:
        """As a shell finds them: `*` takes in no hidden files, such as those being written."""
        wanted = "*" if partition is None else glob.escape(partition)
        wild = "*".join(map(glob.escape, path.split("*"))).replace(PARTITION, wanted)
        named = _named(str(self.base / path))
        for name in glob.glob(str(Path(glob.escape(str(self.base))) / wild), recursive=True):  # noqa: PTH207
            match = named.fullmatch(name)
            key = partition or (match["key"] if match else "")
            if _is_unnameable(name):
                logging.getLogger(__name__).warning("%s is left out: its name is no UTF-8", ascii(name))
            elif key and Path(name).is_file():
                yield SourceFile(name, key, Path(name).stat().st_mtime)

    def at_hand(self, file: SourceFile, scratch: Path) -> Path:
        """The file itself."""
        return Path(file.name)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Objects of S3, or of a server that speaks its protocol; `client` is boto3's, and paths are whole URLs."""

    client: Any

    def found(self, path: str, partition: str | None = None) -> Iterator[SourceFile]:
        """By one list of what begins as the path does."""
        bucket, pattern = parts(path)
        begin = pattern if partition is None else pattern.replace(PARTITION, "\0")
        prefix = re.split(r"\*|\{partition\}", begin)[0].replace("\0", partition or "")
        named = _named(pattern, partition)
        with _asking("list", bucket, prefix):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for found in page.get("Contents", ()):
                    if match := named.fullmatch(found["Key"]):
                        name = f"{IN_BUCKET}{bucket}/{found['Key']}"
                        yield SourceFile(name, match["key"], found["LastModified"].timestamp())

    def at_hand(self, file: SourceFile, scratch: Path) -> Path:
        """A copy, brought in parts."""
        bucket, key = parts(file.name)
        copy = scratch / f"{len(list(scratch.iterdir()))}{Path(key).suffix}"
        with _asking("read", bucket, key):
            self.client.download_file(bucket, key, str(copy))
        return copy


def _is_unnameable(name: str) -> bool:
    """Whether a file's name cannot be written as text: neither could the partition of it be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def parts(url: str) -> tuple[str, str]:
    """The bucket and the key of an `s3://` URL."""
    bucket, _, key = url.removeprefix(IN_BUCKET).partition("/")
    return bucket, key


def _named(path: str, partition: str | None = None) -> re.Pattern[str]:
    """The names that a path means; `key` is what stands where it says `{partition}`: no hidden file's name."""
    before, *rest = ("[^/]*".join(map(re.escape, part.split("*"))) for part in path.split(PARTITION))
    key = r"(?!\.)[^/]+?" if partition is None else re.escape(partition)
    return re.compile(f"{before}(?P<key>{key}){'(?P=key)'.join(rest)}")


_REFUSED = {
    *("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("ExpiredToken", "InvalidToken", "AllAccessDisabled"),
}


@contextmanager
def _asking(verb: str, bucket: str, key: str) -> Iterator[None]:
    """Say what went wrong in words that help, and hold nothing of requests and credentials."""
    from boto3.exceptions import Boto3Error  # type: ignore[import-untyped]
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # type: ignore[import-untyped]

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise DocumentsError(_told(verb, bucket, key, code)) from None
    except NoCredentialsError:
        raise DocumentsError(
            f"there are no AWS credentials to {verb} {IN_BUCKET}{bucket}/{key} with: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or run where a role is given"
        ) from None
    except (BotoCoreError, Boto3Error) as error:
        raise DocumentsError(
            f"{IN_BUCKET}{bucket}/{key} could not be {_DONE[verb]} ({type(error).__name__}), after several tries: is "
            "AWS_ENDPOINT_URL_S3 right, where it is set? Else try later"
        ) from None


_DONE = {"list": "listed", "read": "read"}


def _told(verb: str, bucket: str, key: str, code: str) -> str:
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket!r}: make it, or name another one in `path`"
    if code in ("NoSuchKey", "404"):
        return f"{IN_BUCKET}{bucket}/{key} is gone since it was listed; materialize these documents again"
    if code in _REFUSED:
        return (
            f"{IN_BUCKET}{bucket} does not let us {verb} {key or 'anything'} ({code}): check the AWS credentials that "
            "are set, and that their policy allows s3:ListBucket and s3:GetObject there"
        )
    return f"{IN_BUCKET}{bucket}/{key} could not be {_DONE[verb]} ({code}), after several tries; try later"
