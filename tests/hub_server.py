"""A Hugging Face Hub on the loopback interface, in memory, that misbehaves on request.

    with serve() as hub:
        hub.on("GET", "/api/models/.*", status(500), status(429, Retry_After="1"))
        ...  # HF_ENDPOINT=hub.url: the first two such requests fail, the third is answered

It answers what huggingface_hub asks to create a repository, to commit to it and to download from
it, with files over Git LFS (HF_HUB_DISABLE_XET=1). Large files are on a server of their own, as
with the real one: `hub.storage_url`, which needs no token and should never see one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

WRITER, READER = "hf_writersSecretToken0000000000000", "hf_readersSecretToken1111111111111"
LFS_ENDINGS = (".safetensors", ".png")


@dataclass(frozen=True)
class Request:
    server: str  # "hub" or "storage"
    method: str
    path: str
    headers: dict[str, str]  # lower-case names


@dataclass(frozen=True)
class Commit:
    files: dict[str, bytes]
    title: str
    parent: str | None

    @property
    def sha(self) -> str:
        names = {name: _sha256(content) for name, content in sorted(self.files.items())}
        return hashlib.sha1(json.dumps([names, self.title, self.parent]).encode()).hexdigest()


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # branches and tags

    def commit(self, files: dict[str, bytes], title: str, branch: str = "main") -> str:
        commit = Commit(files, title, self.refs.get(branch))
        self.commits[commit.sha] = commit
        self.refs[branch] = commit.sha
        return commit.sha

    def edit(self, name: str, content: bytes) -> str:
        """Changes a file, as a person does on the web page."""
        return self.commit(self.files | {name: content}, f"Update {name}")

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.refs["main"]].files


class Refusal(Exception):
    def __init__(self, code: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.code, self.headers = code, headers


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    name: str
    share = 1.0  # how much of each answer's body is sent

    def answer(self) -> None:
        self.share = 1.0
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        step = self.hub.note(Request(self.name, self.command, url.path, headers))
        try:
            if step is not None and step(self):
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            for method, pattern, route in ROUTES[self.name]:
                match = re.fullmatch(pattern, url.path)
                if match and self.command in method.split():
                    with self.hub.lock:
                        code, content, extra = route(self, body, *map(unquote, match.groups()))
                    self.reply(code, content, **extra)
                    return
            raise Refusal(404, "no such address")
        except Refusal as error:
            body = json.dumps({"error": str(error)}).encode()
            self.reply(error.code, body, X_Error_Message=str(error), **error.headers)
        except ConnectionError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def reply(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", headers.pop("Content-Length", str(len(body))))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: int(len(body) * self.share)])
        if self.share < 1:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def repository(self, repo_id: str, write: bool = False) -> Repository:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme and (scheme, token) not in {("Bearer", WRITER), ("Bearer", READER)}:
            raise Refusal(401, "Invalid credentials in Authorization header")
        repository = self.hub.repositories.get(repo_id)
        if write and not token:
            raise Refusal(401, "Invalid username or password.")
        if repository is None or (repository.private and token != WRITER):
            raise Refusal(
                404 if token else 401, "Repository not found", X_Error_Code="RepoNotFound"
            )
        if write and token != WRITER:
            raise Refusal(403, "you need write access")
        return repository


Answer = tuple[int, bytes, dict[str, str]]
Step = Callable[[Handler], bool]  # whether it has answered the request


class Hub:
    def __init__(self) -> None:
        self.url = self.storage_url = ""
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # large files, by SHA-256
        self.requests: list[Request] = []
        self.lock = threading.RLock()
        self._steps: list[tuple[str, str, Iterator[Step]]] = []

    def on(self, method: str, pattern: str, *steps: Step) -> None:
        """The next requests of this method whose path matches go through a step each."""
        self._steps.append((method, pattern, iter(steps)))

    def note(self, request: Request) -> Step | None:
        with self.lock:
            self.requests.append(request)
            for method, pattern, steps in self._steps:
                if method == request.method and re.fullmatch(pattern, request.path):
                    step = next(steps, None)
                    if step is not None:
                        return step
        return None

    def count(self, method: str, pattern: str) -> int:
        return sum(
            r.method == method and bool(re.fullmatch(pattern, r.path)) for r in self.requests
        )

    def forget(self) -> None:
        """Requests and steps, not repositories."""
        self.requests.clear()
        self._steps.clear()


def status(code: int, message: str = "no", **headers: str) -> Step:
    """Answers with an error."""

    def step(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        raise Refusal(code, message, **headers)

    return step


def cut(handler: Handler) -> bool:
    """Breaks the connection off in the middle of the larger of request and answer."""
    size = int(handler.headers.get("Content-Length", 0))
    if size == 0:
        handler.share = 0.5
        return False
    handler.rfile.read(size // 2)
    handler.close_connection = True
    return True


def page(handler: Handler) -> bool:
    """What a network that wants a login answers for every address."""
    handler.reply(200, b"<!DOCTYPE html><title>Please log in</title>", Content_Type="text/html")
    return True


def first(act: Callable[[], object]) -> Step:
    """Something else happens before the request is answered."""
    return lambda handler: bool(act() and False)


def lost_answer(handler: Handler) -> bool:
    """The request is carried out, but the connection breaks before its answer."""
    handler.share = 0.0
    return False


def _json(value: Any, code: int = 200) -> Answer:
    return code, json.dumps(value).encode(), {"Content-Type": "application/json"}


def _create(handler: Handler, body: bytes) -> Answer:
    values = json.loads(body)
    repo_id = f"{values.get('organization') or 'user'}/{values['name']}"
    url = {"url": f"{handler.hub.url}/{repo_id}"}
    if handler.headers.get("Authorization") != f"Bearer {WRITER}":
        raise Refusal(401, "Invalid username or password.")
    if repo_id in handler.hub.repositories:
        return _json(url | {"error": "You already created this model repo"}, 409)
    repository = Repository(private=values.get("visibility") == "private")
    repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
    handler.hub.repositories[repo_id] = repository
    return _json(url)


def _info(handler: Handler, body: bytes, repo_id: str, revision: str = "main") -> Answer:
    repository = handler.repository(repo_id)
    sha = _resolve(repository, revision)
    siblings = [{"rfilename": name} for name in repository.commits[sha].files]
    fields = {"id": repo_id, "sha": sha, "private": repository.private, "siblings": siblings}
    return _json(fields | {"tags": [], "downloads": 0})


def _tree(handler: Handler, body: bytes, repo_id: str, revision: str) -> Answer:
    repository = handler.repository(repo_id)
    entries = []
    for name, content in repository.commits[_resolve(repository, revision)].files.items():
        entry = {"type": "file", "path": name, "size": len(content), "oid": _git_sha1(content)}
        if name.endswith(LFS_ENDINGS):
            entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
        entries.append(entry)
    return _json(entries)


def _validate(handler: Handler, body: bytes) -> Answer:
    """A small part of what the real one checks."""
    data = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
    results = [r for model in data.get("model-index", ()) for r in model["results"]]
    whole = all({"task", "dataset", "metrics"} <= set(r) for r in results)
    errors = [] if whole and isinstance(data.get("license"), str) else [{"message": "incomplete"}]
    return _json({"errors": errors, "warnings": []}, 400 if errors else 200)


def _preupload(handler: Handler, body: bytes, repo_id: str, revision: str) -> Answer:
    repository = handler.repository(repo_id, write=True)
    present = repository.commits[_resolve(repository, revision)].files
    answers = []
    for asked in json.loads(body)["files"]:
        name = asked["path"]
        lfs = name.endswith(LFS_ENDINGS)
        answer = {"path": name, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        if name in present:
            answer["oid"] = (_sha256 if lfs else _git_sha1)(present[name])
        answers.append(answer)
    return _json({"files": answers})


def _batch(handler: Handler, body: bytes, repo_id: str) -> Answer:
    handler.repository(repo_id, write=True)
    objects = json.loads(body)["objects"]
    for entry in objects:
        if entry["oid"] not in handler.hub.objects:
            upload = {"href": f"{handler.hub.storage_url}/lfs/{entry['oid']}"}
            entry["actions"] = {"upload": upload}
    return _json({"transfer": "basic", "objects": objects})


def _commit(handler: Handler, body: bytes, repo_id: str, revision: str) -> Answer:
    repository = handler.repository(repo_id, write=True)
    parent, title = _resolve(repository, revision), ""
    files = dict(repository.commits[parent].files)
    for line in body.decode().splitlines():
        operation = json.loads(line)
        value = operation["value"]
        match operation["key"]:
            case "header":
                title = value["summary"]
                if value.get("parentCommit", parent) != parent:
                    raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            case "file":
                files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                files[value["path"]] = handler.hub.objects[value["oid"]]
            case "deletedFile":
                del files[value["path"]]
    sha = repository.commit(files, title, revision)
    return _json({"commitUrl": f"{handler.hub.url}/{repo_id}/commit/{sha}", "commitOid": sha})


def _resolve_file(handler: Handler, body: bytes, repo_id: str, revision: str, name: str) -> Answer:
    repository = handler.repository(repo_id)
    sha = _resolve(repository, revision)
    content = repository.commits[sha].files.get(name)
    if content is None:
        raise Refusal(404, "Entry not found", X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
    if not name.endswith(LFS_ENDINGS):
        return _ranged(handler, content, _git_sha1(content), {"X-Repo-Commit": sha})
    oid = _sha256(content)
    handler.hub.objects[oid] = content
    linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
    return (
        302,
        b"",
        linked | {"X-Repo-Commit": sha, "Location": f"{handler.hub.storage_url}/lfs/{oid}"},
    )


def _upload(handler: Handler, body: bytes, oid: str) -> Answer:
    if _sha256(body) != oid:
        raise Refusal(400, "the content does not have this hash")
    handler.hub.objects[oid] = body
    return 200, b"", {}


def _stored(handler: Handler, body: bytes, oid: str) -> Answer:
    return _ranged(handler, handler.hub.objects[oid], oid, {})


def _ranged(handler: Handler, content: bytes, etag: str, headers: dict[str, str]) -> Answer:
    headers = headers | {"ETag": f'"{etag}"'}
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if match is None:
        return 200, content, headers
    start = int(match[1])
    span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    return 206, content[start:], headers | span


def _resolve(repository: Repository, revision: str) -> str:
    sha = repository.refs.get(revision, revision)
    if sha not in repository.commits:
        raise Refusal(404, f"Invalid rev id: {revision}", X_Error_Code="RevisionNotFound")
    return sha


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


ID = r"([^/]+/[^/]+)"
ROUTES: dict[str, list[tuple[str, str, Callable[..., Answer]]]] = {
    "hub": [
        ("POST", "/api/repos/create", _create),
        ("POST", "/api/validate-yaml", _validate),
        ("GET", f"/api/models/{ID}", _info),
        ("GET", f"/api/models/{ID}/revision/([^/]+)", _info),
        ("GET", f"/api/models/{ID}/tree/([^/]+)", _tree),
        ("POST", f"/api/models/{ID}/preupload/([^/]+)", _preupload),
        ("POST", f"/api/models/{ID}/commit/([^/]+)", _commit),
        ("POST", rf"/{ID}\.git/info/lfs/objects/batch", _batch),
        ("GET HEAD", f"/{ID}/resolve/([^/]+)/(.+)", _resolve_file),
    ],
    "storage": [
        ("PUT", "/lfs/([0-9a-f]{64})", _upload),
        ("GET HEAD", "/lfs/([0-9a-f]{64})", _stored),
    ],
}


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    with _server(hub, "hub") as hub.url, _server(hub, "storage") as hub.storage_url:
        yield hub


@contextmanager
def _server(hub: Hub, name: str) -> Iterator[str]:
    handler = type("HubHandler", (Handler,), {"hub": hub, "name": name})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads, http.block_on_close = True, False
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()
