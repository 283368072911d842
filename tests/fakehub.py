"""A Hugging Face Hub in memory, on loopback, that speaks the Hub's protocol to the real client (without Xet).

`with FakeHub() as hub:` serves at `hub.url`; `hub.environment(home)` is what a client process needs in its
environment. The client reads it when `huggingface_hub` is imported, so clients run in processes of their own.
`python tests/fakehub.py 8899` serves until interrupted.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

LARGE_SUFFIXES = (".safetensors", ".bin", ".parquet", ".arrow", ".hdf5", ".h5", ".npz", ".npy", ".png", ".zst")
NOW = "2026-01-01T00:00:00.000Z"
KIND = r"(?P<kind>models|datasets|spaces)/(?P<id>[^/]+/[^/]+?)"
PREFIXED = r"(?:(?P<kind>datasets|spaces)/)?(?P<id>[^/]+/[^/]+?)"


class HubError(Exception):
    """An answer other than success; `code` is what the client turns into its own exception."""

    def __init__(self, status, message, code=None):
        self.status, self.message, self.code = status, message, code


class File:
    """A committed file, as git or git-lfs would identify it."""

    def __init__(self, data, large):
        self.data = data
        self.oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self.lfs = hashlib.sha256(data).hexdigest() if large else None

    @property
    def etag(self):
        return self.lfs or self.oid

    def pointer(self):
        return {"size": len(self.data), "pointerSize": 134}

    def describe(self, path):
        lfs = {"lfs": {"oid": self.lfs} | self.pointer()} if self.lfs else {}
        return {"type": "file", "path": path, "size": len(self.data), "oid": self.oid} | lfs


class Repo:
    """Commits, each a mapping from path to `File`, and the branches and tags that name them."""

    def __init__(self, kind, name, private):
        self.kind, self.name, self.private = kind, name, private
        self.commits, self.branches, self.tags, self.log = {}, {}, {}, []
        self.commit({}, "initial commit", "main")

    def commit(self, files, title, branch):
        seed = f"{self.kind}{self.name}{len(self.log)}{title}{sorted(files)}"
        sha = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        self.log.append({"id": sha, "title": title, "message": "", "date": NOW, "authors": [{"user": "user"}]})
        return sha

    def resolve(self, revision):
        revision = unquote(revision or "main")
        for names in (self.branches, self.tags):
            if revision in names:
                return names[revision]
        matches = [sha for sha in self.commits if len(revision) >= 7 and sha.startswith(revision)]
        if not matches:
            raise HubError(404, f"no revision {revision}", "RevisionNotFound")
        return matches[0]

    def files(self, revision="main"):
        return self.commits[self.resolve(revision)]


class FakeHub:
    """The server.

    `repos` maps (kind, name) to a `Repo`; `requests` lists (method, path) of what was asked; `failures` maps names of
    repositories to the (status, code) that the Hub answers for them. `faults` maps (call, name of a repository) to
    [fault, times] or [fault, times, passed]: after so many that pass, so many calls get this fault, which is a status,
    "cut" (the connection ends within the headers), "half" (within a file) or "slow" (no answer in 5 s). A call is named
    as the function here that answers it. `users` maps tokens to what is said of their owners; for `whoami`
    the token stands in the place of the repository.
    """

    def __init__(self, port=0, verbose=False):
        self.repos, self.large_files, self.requests, self.failures = {}, {}, [], {}
        self.faults, self.users, self.closed = {}, {}, threading.Event()
        self.lock, self.verbose = threading.RLock(), verbose
        self.server = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home):
        """Environment of a client process whose caches lie in `home`."""
        own = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_fake", "HF_HOME": str(home)}
        return {**os.environ, **own, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}

    def put(self, kind, name, folder):
        """Commit the files of a folder, as if they had been pushed."""
        repo = self.repos.setdefault((kind, name), Repo(kind, name, private=False))
        files = [path for path in folder.rglob("*") if path.is_file()]
        large = {path: path.name.endswith(LARGE_SUFFIXES) for path in files}
        held = {str(path.relative_to(folder)): File(path.read_bytes(), large[path]) for path in files}
        repo.commit(held, "a folder", "main")

    def repo(self, kind, name):
        if name in self.failures:
            raise HubError(self.failures[name][0], "as the test asks", self.failures[name][1])
        if (kind, name) not in self.repos:
            raise HubError(404, f"no repository {name}", "RepoNotFound")
        return self.repos[kind, name]


class Handler(BaseHTTPRequestHandler):
    """Routes are filled in by `route`; each is called with the fields of its path."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms
    hub: FakeHub
    routes: ClassVar[list] = []

    def log_message(self, *_):
        pass

    def serve(self):
        url = urlsplit(self.path)
        self.query, self.raw, self.half = parse_qs(url.query), self.read_body(), False
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hub.requests.append((self.command, self.path))
        try:
            self.dispatch(unquote(url.path))
        except HubError as error:
            if self.hub.verbose:
                sys.stderr.write(f"{self.command} {self.path}: {error.status} {error.message}\n")
            code = {"X-Error-Code": error.code} if error.code else {}
            self.answer({"error": error.message}, error.status, {"X-Error-Message": error.message} | code)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815 (names of http.server)

    def dispatch(self, path):
        open_to_all = re.search(r"paths-info|validate-yaml|__lfs", path)
        if self.command in ("POST", "PUT", "DELETE") and not self.token and not open_to_all:
            raise HubError(401, "Invalid username or password.")
        for methods, pattern, action in self.routes:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split("|"):
                fields = match.groupdict()
                if "id" in fields:
                    fields["repo"] = (fields.pop("kind") or "models", fields.pop("id"))
                name = fields["repo"][1] if "repo" in fields else self.token
                name = asked_repo(json.loads(self.raw))[1] if action is create else name
                if self.fails(self.hub.faults.get((action.__name__, name), [None, 0])):
                    return None
                with self.hub.lock:
                    return action(self, **fields)
        raise HubError(404, f"no route {self.command} {path}")

    def fails(self, fault):
        """Answer with a fault, if one is left to give."""
        kind, times, *passed = fault
        if times < 1:
            return False
        if passed and passed[0]:
            fault[2] -= 1
            return False
        fault[1] -= 1
        if isinstance(kind, int):
            self.answer({"error": "as the test asks"}, kind, {"Retry-After": "7"} if kind == 429 else {})
            return True
        if kind == "slow":
            self.hub.closed.wait(5)
        if kind == "half":
            self.half = True
            return False
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        self.close_connection = True
        return True

    def read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while length := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, content=None, status=200, headers=None, data=None):
        data = json.dumps(content).encode() if data is None else data
        defaults = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        self.send_response(status)
        for name, value in (defaults | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.close_connection |= self.half
            self.wfile.write(data[: len(data) // 2] if self.half else data)


def route(methods, pattern):
    def register(action):
        Handler.routes.append((methods, pattern, action))
        return action

    return register


@route("GET", "/api/whoami-v2")
def whoami(request):
    if not request.token:
        raise HubError(401, "Invalid username or password.")
    token = {"accessToken": {"role": "write", "displayName": "test"}}
    user = {"type": "user", "id": "1", "name": "user", "fullname": "user", "orgs": [], "auth": token}
    request.answer(user | request.hub.users.get(request.token, {}))


def asked_repo(asked):
    return asked.get("type", "model") + "s", f"{asked.get('organization') or 'user'}/{asked['name']}"


@route("POST", "/api/repos/create")
def create(request):
    asked = json.loads(request.raw)
    kind, name = asked_repo(asked)
    url = f"{request.hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
    if (kind, name) in request.hub.repos:
        return request.answer({"error": "You already created this repo", "url": url}, 409)
    private = bool(asked.get("private")) or asked.get("visibility") == "private"
    request.hub.repos[kind, name] = Repo(kind, name, private)
    request.answer({"url": url, "name": name, "id": "0" * 24})


@route("DELETE", "/api/repos/delete")
def delete(request):
    request.hub.repos.pop(asked_repo(json.loads(request.raw)), None)
    request.answer({})


@route("POST", "/api/validate-yaml")
def validate(request):
    request.answer({"errors": [], "warnings": []})


@route("PUT", f"/api/{KIND}/settings")
def settings(request, repo):
    found = request.hub.repo(*repo)
    found.private = json.loads(request.raw).get("private", found.private)
    request.answer({"private": found.private})


@route("POST", rf"/api/{KIND}/preupload/(?P<revision>.+)")
def preupload(request, repo, revision):
    found = request.hub.repo(*repo)
    present, answers = found.files(revision), []
    for file in json.loads(request.raw)["files"]:
        path, sample = file["path"], base64.b64decode(file.get("sample", ""))
        large = path.endswith(LARGE_SUFFIXES) or file["size"] > 10_000_000 or b"\0" in sample
        same = {"oid": present[path].etag} if path in present else {}
        answers.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False} | same)
    request.answer({"files": answers, "commitOid": found.resolve(revision)})


@route("POST", rf"/{PREFIXED}\.git/info/lfs/objects/batch")
def lfs_batch(request, repo):
    request.hub.repo(*repo)
    here = f"{request.hub.url}/__lfs/{'/'.join(repo)}"
    upload = {"verify": {"href": f"{here}/verify"}}
    objects = []
    for item in json.loads(request.raw)["objects"]:
        target = {"upload": {"href": f"{here}/{item['oid']}"}}
        actions = {} if item["oid"] in request.hub.large_files else {"actions": target | upload}
        objects.append({"oid": item["oid"], "size": item["size"], "authenticated": True} | actions)
    kind = {"Content-Type": "application/vnd.git-lfs+json"}
    request.answer({"transfer": "basic", "objects": objects}, headers=kind)


@route("PUT", rf"/__lfs/{KIND}/(?P<oid>\w+)")
def lfs_put(request, repo, oid):
    if hashlib.sha256(request.raw).hexdigest() != oid:
        raise HubError(400, "sha256 mismatch")
    request.hub.large_files[oid] = request.raw
    request.answer({})


@route("POST", f"/__lfs/{KIND}/verify")
def lfs_verify(request, repo):
    if json.loads(request.raw)["oid"] not in request.hub.large_files:
        raise HubError(404, "no such object")
    request.answer({})


@route("POST", rf"/api/{KIND}/commit/(?P<revision>.+)")
def commit(request, repo, revision):
    found = request.hub.repo(*repo)
    head, title = found.resolve(revision), "commit"
    files = dict(found.commits[head])
    for line in map(json.loads, request.raw.splitlines()):
        key, value = line["key"], line["value"]
        if key == "header":
            title = value["summary"]
            if value.get("parentCommit") and not head.startswith(value["parentCommit"]):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
        elif key == "file":
            files[value["path"]] = File(base64.b64decode(value["content"]), large=False)
        elif key == "lfsFile":
            if value["oid"] not in request.hub.large_files:
                raise HubError(400, f"no object {value['oid']}")
            files[value["path"]] = File(request.hub.large_files[value["oid"]], large=True)
        elif key == "deletedFile":
            files.pop(value["path"], None)
        elif key == "deletedFolder":
            folder = value["path"].rstrip("/") + "/"
            files = {path: file for path, file in files.items() if not path.startswith(folder)}
    sha = found.commit(files, title, revision)
    prefix = "" if found.kind == "models" else found.kind + "/"
    url = f"{request.hub.url}/{prefix}{found.name}/commit/{sha}"
    request.answer({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})


@route("GET", rf"/api/{KIND}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?")
def tree(request, repo, revision, path):
    folder = (path or "").strip("/")
    prefix = folder + "/" if folder else ""
    recursive = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    entries, folders = [], set()
    for name, file in sorted(request.hub.repo(*repo).files(revision).items()):
        if name.startswith(prefix):
            parts = name[len(prefix) :].split("/")
            folders |= {prefix + "/".join(parts[:depth]) for depth in range(1, len(parts))}
            if recursive or len(parts) == 1:
                entries.append(file.describe(name))
    if folder and not entries and not folders:
        raise HubError(404, f"no folder {folder}", "EntryNotFound")
    shown = sorted(name for name in folders if recursive or "/" not in name[len(prefix) :])
    request.answer([{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in shown] + entries)


@route("POST", rf"/api/{KIND}/paths-info/(?P<revision>[^/]+)")
def paths_info(request, repo, revision):
    is_json = "json" in request.headers.get("Content-Type", "")
    paths = (json.loads(request.raw) if is_json else parse_qs(request.raw.decode()))["paths"]
    files, answers = request.hub.repo(*repo).files(revision), []
    for path in [paths] if isinstance(paths, str) else paths:
        if path in files:
            answers.append(files[path].describe(path))
        elif any(name.startswith(path.rstrip("/") + "/") for name in files):
            answers.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
    request.answer(answers)


@route("GET", f"/api/{KIND}/refs")
def refs(request, repo):
    found = request.hub.repo(*repo)

    def listing(kind, names):
        return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": sha} for n, sha in names.items()]

    branches, tags = listing("heads", found.branches), listing("tags", found.tags)
    request.answer({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


@route("GET", f"/api/{KIND}/commits/(?P<revision>.+)")
def commits(request, repo, revision):
    request.answer(request.hub.repo(*repo).log[::-1])


@route("POST|DELETE", f"/api/{KIND}/(?P<what>branch|tag)/(?P<revision>.+)")
def reference(request, repo, what, revision):
    found = request.hub.repo(*repo)
    names = found.branches if what == "branch" else found.tags
    if request.command == "DELETE":
        names.pop(revision, None)
        return request.answer({})
    asked = json.loads(request.raw or b"{}")
    name, target = (revision, asked.get("startingPoint")) if what == "branch" else (asked["tag"], revision)
    if name in names:
        raise HubError(409, f"Reference already exists: {name}")
    names[name] = found.resolve(target)
    request.answer({})


@route("GET", f"/api/{KIND}(?:/revision/(?P<revision>.+))?")
def info(request, repo, revision):
    found = request.hub.repo(*repo)
    sha, siblings = found.resolve(revision), []
    for path, file in sorted(found.commits[sha].items()):
        blob = {"size": len(file.data), "blobId": file.oid}
        lfs = {"lfs": {"sha256": file.lfs} | file.pointer()} if file.lfs else {}
        siblings.append({"rfilename": path} | (blob | lfs if request.query.get("blobs") else {}))
    names = {"_id": "0" * 24, "id": found.name, "modelId": found.name, "author": found.name.split("/")[0]}
    state = {"sha": sha, "lastModified": NOW, "createdAt": NOW, "private": found.private, "gated": False}
    counts = {"disabled": False, "downloads": 0, "likes": 0, "tags": [], "spaces": [], "usedStorage": 0}
    request.answer(names | state | counts | {"siblings": siblings}, headers={"X-Repo-Commit": sha})


@route("GET|HEAD", rf"/{PREFIXED}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(request, repo, revision, path):
    found = request.hub.repo(*repo)
    sha = found.resolve(revision)
    file = found.commits[sha].get(path)
    if file is None:
        raise HubError(404, f"no file {path}", "EntryNotFound")
    headers = {"ETag": f'"{file.etag}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
    headers["Content-Type"] = "application/octet-stream"
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.lfs}"', "X-Linked-Size": str(len(file.data))}
    data, status = file.data, 200
    if match := re.match(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
        first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        data, status = data[first : last + 1], 206
    request.answer(None, status, headers, data)


if __name__ == "__main__":
    with FakeHub(int(sys.argv[1]) if len(sys.argv) > 1 else 8899, verbose=True) as served:
        sys.stdout.write(f"HF_ENDPOINT={served.url}\n")
        sys.stdout.flush()
        threading.Event().wait()
