"""A small Hatrac server: objects in a folder, with the responses of the recordings."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fakes.ermrest import FLASK_404
from fakes.refusals import Refused
from fakes.web import Answer, Request, User

__all__ = ["Hatrac"]

PIECE = 2**20
MAX_REQUEST = 128 * 2**20
MAX_NAME = 255
VERSION_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
PATH = re.compile(r"(?P<name>[^:;]*)(?::(?P<version>[A-Z0-9]+))?(?:;(?P<sub>[a-z]+)(?:/(?P<rest>.*))?)?")


def refused(status: int, text: str, **headers: str) -> Refused:
    return Refused(status, body=f"{text}\n", headers=headers)


@dataclass
class Version:
    """One version of an object."""

    name: str
    file: Path
    length: int
    metadata: dict[str, str]


@dataclass
class Object:
    """A name with the versions of its object, the newest last."""

    owner: list[str]
    versions: dict[str, Version] = field(default_factory=dict)
    acl: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Job:
    """A chunked upload."""

    target: str
    owner: str
    chunk: int
    length: int
    metadata: dict[str, str]
    file: Path
    is_damaged: bool = False


class Hatrac:
    """All objects of a server.

    Args:
        folder: Folder of the bytes.
        users: Users that may create namespaces at the top.
    """

    def __init__(self, folder: Path, users: tuple[str, ...] = ("admin",)) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self.namespaces: dict[str, Object] = {"": Object(list(users))}
        self.objects: dict[str, Object] = {}
        self.jobs: dict[str, Job] = {}
        self.burnt: set[str] = set()
        self.in_creation: set[str] = set()

    def answer(self, request: Request) -> Answer:
        found = PATH.fullmatch(request.path.removeprefix("/hatrac").rstrip("/") or "")
        if found is None:
            return Answer.text(404, FLASK_404, "text/html; charset=utf-8")
        name, version, sub, rest = found["name"], found["version"], found["sub"], found["rest"]
        name = "/".join(quote(unquote(part), safe="") for part in name.split("/"))
        if sub is None:
            handler = getattr(self, f"_{request.method.lower()}", None)
            return handler(request, name, version) if handler else Answer.text(405, "")
        handler = getattr(self, f"_sub_{sub}", None)
        if handler is None:
            return Answer.text(404, FLASK_404, "text/html; charset=utf-8")
        answer: Answer = handler(request, name, version, rest)
        return answer

    # access

    def _may(self, user: User, name: str, access: str, shown: str | None = None) -> None:
        """Require ``read``, ``update`` or ``create`` access, granted on the name or a namespace above it."""
        where = name
        while True:
            stored = self.objects.get(where) or self.namespaces.get(where)
            if stored is not None:
                acl = stored.acl
                granted = {*stored.owner, *acl.get(f"subtree-{access}", [])}
                granted |= {*acl.get("subtree-owner", []), *(acl.get(access, []) if where == name else [])}
                if user.roles & granted:
                    return
            if not where:
                break
            where = where.rpartition("/")[0]
        shown = f"/hatrac{shown if shown is not None else name}" + ("/" if not (shown or name) else "")
        if user.name is None:
            raise refused(401, f"Authentication required for access to {shown}")
        raise refused(403, f"Access to {shown} forbidden.")

    # names and contents

    def _put(self, request: Request, name: str, version: str | None) -> Answer:
        if request.headers.get("content-type") == "application/x-hatrac-namespace":
            return self._make_namespace(request, name)
        if name in self.namespaces:
            raise refused(409, f"Namespace /hatrac{name} already exists.")
        self._check_name(name)
        stored = self.objects.get(name)
        if stored is None:
            self._parent(request, name)
        else:
            self._may(request.user, name, "update")
        self._check_precondition(request, stored)
        metadata = self._metadata(request)
        with self._lock:
            stored = self.objects.setdefault(name, Object([request.user.name or "*"]))
        if len(request.body) > MAX_REQUEST:
            raise refused(413, "Request body exceeds the limit.")
        digest = hashlib.md5(request.body).digest()
        expected = metadata.get("content-md5")
        if expected is not None and base64.b64decode(expected) != digest:
            raise refused(
                400, f"Received content MD5 {digest!r} does not match expected {base64.b64decode(expected)!r}."
            )
        new = "".join(secrets.choice(VERSION_ALPHABET) for _ in range(26))
        self._check_length(name, new)
        file = self._folder / new
        file.write_bytes(request.body)
        return self._settle(name, Version(new, file, len(request.body), metadata))

    def _settle(self, name: str, version: Version) -> Answer:
        with self._lock:
            self.objects[name].versions[version.name] = version
        url = f"/hatrac{name}:{version.name}"
        return Answer.text(201, f"{url}\n", "text/uri-list", Location=url)

    def _check_name(self, name: str) -> None:
        if name in self.burnt:
            raise refused(409, f"Name /hatrac{name} not available.")

    def _check_length(self, name: str, version: str) -> None:
        if len(name.rpartition("/")[2]) + 1 + len(version) >= MAX_NAME:
            raise refused(500, f"[Errno 36] File name too long: '/var/www/hatrac{name}:{version}'")

    def _check_precondition(self, request: Request, stored: Object | None) -> None:
        current = f'"{list(stored.versions)[-1]}"' if stored and stored.versions else None
        wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
        if (wanted is not None and wanted != current) or (unwanted == "*" and current):
            headers = {"ETag": current} if current else {}
            raise Refused(412, headers=headers)

    def _metadata(self, request: Request) -> dict[str, str]:
        headers = request.headers
        metadata = {"content-type": headers.get("content-type", "application/octet-stream")}
        for key in ("content-md5", "content-sha256"):
            if key in headers:
                metadata[key] = self._digest(headers[key])
        if disposition := headers.get("content-disposition"):
            metadata["content-disposition"] = self._disposition(disposition)
        return metadata

    def _digest(self, text: str) -> str:
        if re.fullmatch("[0-9a-f]{32}", text):
            return base64.b64encode(bytes.fromhex(text)).decode()
        try:
            base64.b64decode(text, validate=True)
        except ValueError:
            raise refused(400, f'Could not base64 decode "{text}". Incorrect padding') from None
        return text

    def _disposition(self, text: str) -> str:
        found = re.fullmatch(r"filename\*=UTF-8''([-A-Za-z0-9_.~%!#$&+^`|]+)", text)
        if found is None:
            raise refused(400, f'Cannot accept content-disposition "{text}".')
        if "/" in unquote(found[1]) or "\\" in unquote(found[1]):
            raise refused(
                400,
                f'Invalid occurrence of path divider in content-disposition filename component "{unquote(found[1])}" '
                "after URL and UTF-8 decoding.",
            )
        return text

    def _make_namespace(self, request: Request, name: str) -> Answer:
        if name in self.namespaces:
            raise refused(409, f"Namespace /hatrac{name} already exists.")
        self._check_name(name)
        self._parent(request, name)
        self.namespaces[name] = Object([request.user.name or "*"])
        return Answer.text(201, f"/hatrac{name}\n", "text/uri-list", Location=f"/hatrac{name}")

    def _parent(self, request: Request, name: str) -> None:
        """Check the namespace of a new name, or create it if requested."""
        parent = name.rpartition("/")[0]
        if parent in self.objects:
            raise refused(409, f"Parent /hatrac{parent} is not a namespace.")
        if parent not in self.namespaces:
            if request.parameters.get("parents") != "true":
                raise refused(404, f"Resource /hatrac{parent} not found.")
            self._check_name(parent)
            self._parent(request, parent)
            self.namespaces[parent] = Object([request.user.name or "*"])
            return
        self._may(request.user, parent, "create")

    def _find(self, request: Request, name: str, version: str | None) -> tuple[Object, Version]:
        stored = self.objects.get(name)
        if stored is None:
            raise refused(404, f"Resource /hatrac{name} not found.")
        if version is not None and version not in stored.versions:
            raise refused(404, f"Resource /hatrac{name}:{version} not available.")
        if not stored.versions:
            self._may(request.user, name, "read")
            raise refused(409, f"Object /hatrac{name} currently has no content.")
        newest = stored.versions[version or list(stored.versions)[-1]]
        self._may(request.user, name, "read", f"{name}:{newest.name}")
        return stored, newest

    def _head(self, request: Request, name: str, version: str | None) -> Answer:
        return self._get(request, name, version, head=True)

    def _get(self, request: Request, name: str, version: str | None, *, head: bool = False) -> Answer:
        if name in self.namespaces:
            self._may(request.user, name, "read")
            return self._listing(request, name)
        _, found = self._find(request, name, version)
        etag = f'"{found.name}"'
        wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
        if unwanted == etag or (wanted is not None and wanted != etag):
            return Answer(304, b"", {"ETag": etag})
        headers = {
            **{key: value for key, value in found.metadata.items() if key != "content-type"},
            "Content-Location": f"/hatrac{name}:{found.name}",
            "ETag": etag,
            "Vary": "cookie",
            "Content-Type": found.metadata["content-type"],
        }
        headers.setdefault("content-disposition", f"filename*=UTF-8''{name.rpartition('/')[2]}")
        if head:
            return Answer(200, b"", {**headers, "accept-ranges": "bytes", "Content-Length": str(found.length)})
        first, last = self._range(request, f"/hatrac{name}:{found.name}", found.length)
        if (first, last) == (0, found.length - 1) and "range" not in request.headers:
            return Answer(
                200, b"", {**headers, "Content-Length": str(found.length)}, lambda: _read(found.file, 0, last)
            )
        if first == -1:
            return Answer(
                200,
                b"",
                {**headers, "Content-Length": str(found.length)},
                lambda: _read(found.file, 0, found.length - 1),
            )
        headers = {key: value for key, value in headers.items() if key not in ("content-md5", "content-sha256")}
        headers |= {
            "content-range": f"bytes {first}-{last}/{found.length}",
            "Content-Length": str(last - first + 1),
            "content-disposition": f"filename*=UTF-8''{name.rpartition('/')[2]}",
        }
        return Answer(206, b"", headers, lambda: _read(found.file, first, last))

    def _range(self, request: Request, url: str, length: int) -> tuple[int, int]:
        byte_range = request.headers.get("range")
        if byte_range is None:
            return 0, length - 1
        if "," in byte_range:
            raise refused(501, f"Multiple range request not implemented for resource {url}.")
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", byte_range)
        if found is None or found[0] == "bytes=-":
            return -1, -1
        if not found[1]:
            return max(0, length - int(found[2])), length - 1
        first, last = int(found[1]), min(int(found[2] or length - 1), length - 1)
        if first >= length:
            raise refused(416, f"Range not satisfiable for resource {url}.", **{"content-range": f"bytes */{length}"})
        return first, last

    def _listing(self, request: Request, name: str) -> Answer:
        names = sorted(
            f"/hatrac{child}"
            for child in (*self.namespaces, *self.objects)
            if child and child.rpartition("/")[0] == name and child not in self.burnt
        )
        if request.accept == "text/uri-list":
            answer = Answer.text(200, "".join(f"{one}\n" for one in names), "text/uri-list")
        else:
            answer = Answer.json(200, names)
        answer.headers["ETag"] = f'"{hashlib.md5(repr(names).encode()).hexdigest()}"'
        return answer

    def _delete(self, request: Request, name: str, version: str | None) -> Answer:
        if name not in self.objects and name not in self.namespaces:
            raise refused(404, f"Resource /hatrac{name} not found.")
        self._may(request.user, name, "update")
        if version is not None:
            del self._find(request, name, version)[0].versions[version]
            return Answer(204)
        for mapping in (self.objects, self.namespaces):
            for child in [child for child in mapping if child == name or child.startswith(f"{name}/")]:
                del mapping[child]
                self.burnt.add(child)
        return Answer(204)

    # sub-resources

    def _sub_versions(self, request: Request, name: str, version: str | None, rest: str | None) -> Answer:
        if request.method not in ("GET", "HEAD"):
            return Answer.text(405, "", "text/html; charset=utf-8", Allow="TRACE, HEAD, GET, OPTIONS")
        stored, _ = self._find(request, name, None)
        listed = sorted(f"/hatrac{name}:{one}" for one in stored.versions)
        answer = Answer.json(200, listed)
        answer.headers["ETag"] = f'"{hashlib.md5(repr(listed).encode()).hexdigest()}"'
        return answer

    def _sub_acl(self, request: Request, name: str, version: str | None, rest: str | None) -> Answer:
        stored = self.objects.get(name) or self.namespaces[name]
        self._may(request.user, name, "update")
        if request.method == "PUT" and rest:
            stored.acl[rest] = request.json()
            return Answer(204)
        kinds = ["owner", "create", "read", *(f"subtree-{one}" for one in ("owner", "create", "read", "update"))]
        if name in self.objects:
            kinds = ["owner", "update", "read", "subtree-owner", "subtree-read"]
        if version is not None:
            return _tagged(Answer.json(200, {"owner": stored.owner, "read": []}))
        return _tagged(Answer.json(200, {kind: stored.acl.get(kind, []) for kind in kinds} | {"owner": stored.owner}))

    def _sub_metadata(self, request: Request, name: str, version: str | None, rest: str | None) -> Answer:
        _, found = self._find(request, name, version)
        if rest and rest not in found.metadata:
            raise refused(404, f"Metadata /hatrac{name}:{found.name};metadata/{rest} not found.")
        if rest:
            return _tagged(Answer.text(200, f"{found.metadata[rest]}\n"))
        return _tagged(Answer.json(200, found.metadata))

    def _sub_upload(self, request: Request, name: str, version: str | None, rest: str | None) -> Answer:
        job, _, chunk = (rest or "").partition("/")
        if not job:
            return self._jobs(request, name)
        url = f"/hatrac{name};upload/{job}"
        upload_job = self.jobs.get(job)
        if upload_job is None or upload_job.target != name:
            raise refused(404, f"Resource {url} not found.")
        if upload_job.owner not in request.user.roles:
            raise refused(403 if request.user.name else 401, f"Access to {url} forbidden.")
        if chunk:
            if request.method != "PUT":
                return Answer.text(405, "Request method not allowed on this resource.\n")
            return self._chunk(request, upload_job, chunk)
        match request.method:
            case "GET":
                identity = {"url": url, "target": f"/hatrac{name}", "owner": [upload_job.owner]}
                sizes = {"chunk-length": upload_job.chunk, "content-length": upload_job.length}
                return Answer.json(200, {**identity, **sizes, **upload_job.metadata})
            case "POST":
                return self._finalize(job, upload_job)
            case "DELETE":
                del self.jobs[job]
                return Answer(204)
        raise Refused(405)

    def _jobs(self, request: Request, name: str) -> Answer:
        if name in self.namespaces:
            if request.method == "POST":
                raise refused(409, f"Name {name} is not available for use.")
            raise refused(404, f"Uploads sub-resource on /hatrac{name} not available.")
        if request.method == "GET":
            return Answer.json(
                200,
                [f"/hatrac{name};upload/{job}" for job, upload_job in self.jobs.items() if upload_job.target == name],
            )
        if request.headers.get("content-type") != "application/json":
            raise refused(400, "Only application/json input is accepted for upload jobs.")
        parameters = request.json()
        chunk, length = (self._count(parameters, field) for field in ("chunk-length", "content-length"))
        metadata = {"content-type": parameters.get("content-type", "application/octet-stream")}
        for key in ("content-md5", "content-sha256"):
            if key in parameters:
                metadata[key] = self._digest(parameters[key])
        if "content-disposition" in parameters:
            metadata["content-disposition"] = self._disposition(parameters["content-disposition"])
        self._check_name(name)
        if name in self.objects:
            self._may(request.user, name, "update")
        else:
            self._parent(request, name)
        self._check_length(name, "x" * 26)
        with self._lock:
            self.objects.setdefault(name, Object([request.user.name or "*"]))
        job = "".join(secrets.choice(VERSION_ALPHABET) for _ in range(26))
        file = self._folder / f"{job}.part"
        file.touch()
        self.jobs[job] = Job(name, request.user.name or "*", chunk, length, metadata, file)
        url = f"/hatrac{name};upload/{job}"
        return Answer.text(201, f"{url}\n", "text/uri-list", Location=url)

    def _count(self, parameters: dict[str, Any], field: str) -> int:
        if field not in parameters:
            raise refused(400, f"Missing required field '{field}'.")
        try:
            count = int(parameters[field])
        except ValueError as error:
            raise refused(400, f"Invalid count: {error}.") from None
        if field == "chunk-length" and count < 1:
            raise refused(500, 'new row for relation "upload" violates check constraint "upload_chunksize_check"')
        return count

    def _chunk(self, request: Request, job: Job, chunk: str) -> Answer:
        if not chunk.isdigit():
            raise refused(400, f"Invalid chunk number {chunk}.")
        number, length = int(chunk), len(request.body)
        last = max(0, -(-job.length // job.chunk) - 1)
        if number > last:
            raise refused(409, f"Chunk number {number} out of range.")
        if number < last and length != job.chunk:
            raise refused(409, f"Uploaded chunk byte count {length} does not match job chunk size.")
        if length > job.chunk:
            raise refused(409, f"Chunk byte count {length} exceeds the job's.")
        expected = request.headers.get("content-md5")
        if expected is not None:
            digest = hashlib.md5(request.body).digest()
            if base64.b64decode(self._digest(expected)) != digest:
                raise refused(400, f"Received content MD5 {digest!r} does not match expected.")
        with self._lock, job.file.open("r+b") as file:
            file.seek(number * job.chunk)
            file.write(request.body)
        return Answer(204)

    def _finalize(self, name: str, job: Job) -> Answer:
        with self._lock:
            if name not in self.jobs:
                raise refused(404, f"Resource /hatrac{job.target};upload/{name} not found.")
            digest = hashlib.md5()
            for piece in _read(job.file, 0, os.path.getsize(job.file) - 1):
                digest.update(piece)
            expected = job.metadata.get("content-md5")
            if expected is not None and base64.b64decode(expected) != digest.digest():
                hexes = digest.hexdigest().encode(), base64.b64decode(expected).hex().encode()
                raise refused(409, f"Current uploaded content MD5 {hexes[0]!r} does not match expected {hexes[1]!r}.")
            del self.jobs[name]
            file = self._folder / name
            job.file.rename(file)
        return self._settle(job.target, Version(name, file, job.length, job.metadata))


def _tagged(answer: Answer) -> Answer:
    answer.headers["ETag"] = f'"{hashlib.md5(answer.body).hexdigest()}"'
    return answer


def _read(file: Path, first: int, last: int) -> Iterator[bytes]:
    left = last - first + 1
    with file.open("rb") as opened:
        opened.seek(first)
        while left > 0 and (piece := opened.read(min(PIECE, left))):
            left -= len(piece)
            yield piece
