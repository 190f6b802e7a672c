"""A store in a bucket of S3, or of a server that speaks its protocol."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
import polars as pl
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from llm_assets.errors import StoreError
from llm_assets.store.files import Entry, Journals

if TYPE_CHECKING:
    from obstore.store import S3Config

_SCRATCH = "llm_assets-scratch-"
_CHUNK_BYTES = 8 << 20
# Parts of one file that are under way at once: each is held in memory.
_PARTS = 4
# A tick of the sensor has a minute for all that it does.
_RETRIES_MAX = 10
_RETRIED_FOR = timedelta(seconds=30)
# How many seconds of answers in real time a killed process may take with it.
_SEGMENT_SECONDS = 1.0
_CODE = re.compile(r"<Code>(\w+)</Code>")
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]+)")


class Bucket:
    """Objects under a prefix of a bucket: see `Files`.

    Credentials and region are found as boto3 finds them. AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) names a server other
    than Amazon's. What is written is built on this machine's disk, in TMPDIR, and uploaded in parts; an object shows
    when it is whole.
    """

    def __init__(self, url: str, environment: Mapping[str, str] = os.environ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise StoreError(f"the store's root is {url!r}; expected the path of a folder, or s3://bucket/prefix")
        self._root = url.rstrip("/")
        session = boto3.Session()
        try:
            credentials = Boto3CredentialProvider(session)
        except ValueError:
            raise StoreError(
                f"there are no AWS credentials for the store at {self._root}: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or run where a role is given"
            ) from None
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        is_plain = bool(endpoint) and urlsplit(endpoint).scheme == "http"
        place: S3Config = {}
        if endpoint:
            place["endpoint"] = endpoint
        if session.region_name:
            place["region"] = session.region_name
        self._objects = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            credential_provider=credentials,
            client_options={"allow_http": is_plain},
            retry_config={"max_retries": _RETRIES_MAX, "retry_timeout": _RETRIED_FOR},
            config=place,
        )
        # polars finds the credentials by itself, as boto3 does too.
        self._options = {f"aws_{name}": value for name, value in place.items()}
        self._options["aws_allow_http"] = str(is_plain).lower()

    def prepare(self) -> None:
        """A bucket is made by who pays for it."""

    def is_empty(self) -> bool:
        """Whether there is no object."""
        return next(self._entries(""), None) is None

    def where(self, path: str = "") -> str:
        """The object's URL."""
        return f"{self._root}/{path}" if path else self._root

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        try:
            with self._asking("read", path):
                self._objects.head(path)
        except _NotThere:
            return False
        return True

    def modified(self, path: str) -> datetime | None:
        """When the object was, as its folder's list says: asked by itself it tells whole seconds only."""
        folder = str(PurePosixPath(path).parent)
        return next((entry.modified for entry in self._entries(folder) if entry.path == path), None)

    @contextmanager
    def reading(self, path: str) -> Iterator[Path]:
        """A copy of the object."""
        with self.scratch() as folder:
            copy = folder / PurePosixPath(path).name
            with copy.open("wb") as file:
                for chunk in self.chunks(path):
                    file.write(chunk)
            yield copy

    def chunks(self, path: str) -> Iterator[bytes]:
        """What is in the object."""
        with self._asking("read", path):
            for chunk in self._objects.get(path).stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """A file on this machine's disk, uploaded when the block ends well."""
        with self.scratch() as folder:
            file = folder / PurePosixPath(path).name
            file.touch()
            yield file
            self.take(file, path)

    def take(self, file: Path, path: str) -> None:
        """Upload it."""
        with self._asking("write", path):
            self._objects.put(path, file, chunk_size=_CHUNK_BYTES, max_concurrency=_PARTS)
        file.unlink()

    def create(self, path: str, content: str) -> str:
        """A conditional put: of two, one creates the object."""
        try:
            with self._asking("write", path):
                self._objects.put(path, content.encode(), mode="create")
        except _AlreadyThere:
            return b"".join(self.chunks(path)).decode()
        return content

    def move(self, old: str, new: str) -> None:
        """Copy it within the bucket, and delete the old one."""
        with self._asking("write", new):
            self._objects.rename(old, new)

    def delete(self, path: str) -> None:
        """Delete the object."""
        with self._asking("delete", path):
            self._objects.delete(path)

    def listed(self, folder: str) -> Iterator[Entry]:
        """The objects under a prefix."""
        yield from sorted(self._entries(folder), key=lambda entry: entry.path)

    def tidy(self, folders: Sequence[str], until: datetime) -> Iterator[str]:
        """Scratch folders of this machine; what was not uploaded whole, the bucket's lifecycle rule removes."""
        for path in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
            if datetime.fromtimestamp(path.stat().st_mtime, UTC) <= until:
                shutil.rmtree(path, ignore_errors=True)
        yield from ()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder in TMPDIR."""
        with tempfile.TemporaryDirectory(prefix=_SCRATCH) as folder:
            yield Path(folder)

    def scan(self, paths: Sequence[str], **options: Any) -> pl.LazyFrame:
        """Parquet files as one table, of which only what is needed is fetched."""
        urls = [self.where(path) for path in paths]
        return pl.scan_parquet(urls, glob=False, storage_options=self._options, **options)

    @property
    def journals(self) -> Journals:
        """Folders of segments."""
        return _Journals(self)

    def _entries(self, folder: str) -> Iterator[Entry]:
        with self._asking("list", folder):
            for page in self._objects.list(folder or None):
                for found in page:
                    yield Entry(found["path"], found["last_modified"])

    @contextmanager
    def _asking(self, verb: str, path: str) -> Iterator[None]:
        """Say what went wrong in words that help. The bucket's own name no file, and hold requests and responses."""
        try:
            yield
        except AlreadyExistsError:
            raise _AlreadyThere(f"{path} is in the store at {self._root} already") from None
        except (BaseError, FileNotFoundError, PermissionError) as error:
            told = str(error)
            found = _CODE.search(told)
            code = found[1] if found else ""
            if code == "NoSuchBucket":
                problem = f"there is no bucket {urlsplit(self._root).netloc!r}: make it, or name another one"
            elif isinstance(error, FileNotFoundError):
                raise _NotThere(
                    f"{path} is not in the store at {self._root}; materialize what is upstream of it"
                ) from None
            elif code in _DENIED or "403 Forbidden" in told:
                problem = (
                    f"{self._root} does not let us {verb} {path or 'anything'} ({code or '403 Forbidden'}): check the "
                    "AWS credentials that are set, and that their policy allows s3:GetObject, s3:PutObject, "
                    "s3:DeleteObject and s3:ListBucket there"
                )
            else:
                status = _STATUS.search(told)
                why = code or (status[1].strip() if status else "no response")
                problem = f"the store at {self._root} could not {verb} {path} ({why}), after several tries; try later"
            raise StoreError(problem) from None


class _NotThere(StoreError):
    pass


class _AlreadyThere(StoreError):
    pass


class _Journals:
    """Journals in segments, as no object can be appended to: see `Journals`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @contextmanager
    def begin(self, path: str) -> Iterator[Callable[[bytes], None]]:
        """Lines are put together for a second."""
        for entry in self._bucket.listed(path):
            self._bucket.delete(entry.path)
        lines: list[bytes] = []
        number, since = 0, monotonic()

        def keep() -> None:
            nonlocal number, since
            if lines:
                number += 1
                with self._bucket.writing(f"{path}/{number:08}.jsonl") as file:
                    file.write_bytes(b"".join(lines))
                lines.clear()
            since = monotonic()

        def add(line: bytes) -> None:
            lines.append(line + b"\n")
            if monotonic() - since >= _SEGMENT_SECONDS:
                keep()

        try:
            yield add
        finally:
            keep()  # what was paid for counts, whatever ended this

    def modified(self, path: str) -> datetime | None:
        """When the last segment was written."""
        return max((entry.modified for entry in self._bucket.listed(path)), default=None)

    def chunks(self, path: str) -> Iterator[bytes]:
        """What is in all segments."""
        for entry in self._bucket.listed(path):
            yield from self._bucket.chunks(entry.path)
