"""A hub of repositories in memory, behind HTTP on this machine: the few addresses that downloads and uploads ask."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator

TOKEN = "hf_secret_of_the_tests"  # the only one that may write
_REPOSITORY = r"(?P<repository>[\w.-]+/[\w.-]+)"


class HubServer:
    """Repositories, each with commits; `asked` lists the requests.

    Attributes:
      address: of the server, for HF_ENDPOINT.
      asked: method and path of each request.
      refuses: paths whose requests are answered with this status; a regular expression and the status.
      spoils: names of files that arrive changed.
    """

    def __init__(self):
        self.asked: list[str] = []
        self.refuses: tuple[str, int] | None = None
        self.spoils: set[str] = set()
        self.private: dict[str, bool] = {}
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}  # repository → commit → files
        self.branches: dict[str, dict[str, str]] = {}
        self.address = ""

    def add(self, repository: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit to a branch and return its name."""
        number = len(self.commits.setdefault(repository, {}))
        commit = hashlib.sha1(repr((repository, number, sorted(files.items()))).encode()).hexdigest()
        self.commits[repository][commit] = files
        self.branches.setdefault(repository, {})[branch] = commit
        return commit

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes] | None:
        """Return the files of a revision; None if there is none."""
        commit = self.branches.get(repository, {}).get(revision, revision)
        return self.commits.get(repository, {}).get(commit)

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Answer requests for the duration of the context; yield the address."""
        handler = type("Handler", (_Handler,), {"hub": self})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self.address
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args): ...

    def do_HEAD(self):
        self._answer(b"")

    def do_GET(self):
        self._answer(b"")

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.refuses is not None and re.search(self.hub.refuses[0], path):
            return self._send({"error": "refused"}, self.hub.refuses[1])
        writes = self.command == "POST" and "paths-info" not in path and "validate-yaml" not in path
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send({"error": "Invalid username or password."}, 401)
        for pattern, answer in (
            (rf"/{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", self._resolve),
            (rf"/api/models/{_REPOSITORY}/tree/(?P<revision>[^/]+)", self._tree),
            (rf"/api/models/{_REPOSITORY}/paths-info/(?P<revision>[^/]+)", self._tree),
            (rf"/api/models/{_REPOSITORY}/preupload/(?P<revision>[^/]+)", self._preupload),
            (rf"/api/models/{_REPOSITORY}/commit/(?P<revision>[^/]+)", self._commit),
            (rf"/api/models/{_REPOSITORY}/branch/(?P<revision>[^/]+)", self._branch),
            (rf"/api/models/{_REPOSITORY}(/revision/(?P<revision>[^/]+))?", self._info),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", lambda body: self._send({"errors": [], "warnings": []})),
        ):
            found = re.fullmatch(pattern, path)
            if found:
                return answer(body, **{name: value or "main" for name, value in found.groupdict().items()})
        return self._send({"error": f"no such address: {path}"}, 404)

    def _send(self, content, status=200, headers=None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _missing(self, what: str) -> None:
        self._send({"error": what}, 404, {"X-Error-Code": what})

    def _resolve(self, body, repository, revision, file):
        files = self.hub.files(repository, revision)
        if repository not in self.hub.commits:
            return self._missing("RepoNotFound")
        if files is None:
            return self._missing("RevisionNotFound")
        if file not in files:
            return self._missing("EntryNotFound")
        commit = self.hub.branches[repository].get(revision, revision)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(files[file]).hexdigest()}"'}
        return self._send(files[file], headers=headers)

    def _tree(self, body, repository, revision):
        files = self.hub.files(repository, revision)
        if repository not in self.hub.commits:
            return self._missing("RepoNotFound")
        if files is None:
            return self._missing("RevisionNotFound")
        wanted = json.loads(body)["paths"] if body.startswith(b"{") else list(files)
        if body and not body.startswith(b"{"):
            wanted = urllib.parse.parse_qs(body.decode())["paths"]
        return self._send([_describe(name, files[name]) for name in wanted if name in files])

    def _preupload(self, body, repository, revision):
        names = [file["path"] for file in json.loads(body)["files"]]
        return self._send(
            {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for name in names]}
        )

    def _commit(self, body, repository, revision):
        files = dict(self.hub.files(repository, revision) or {})
        for line in body.splitlines():
            action = json.loads(line)
            if action["key"] == "file":
                name, content = action["value"]["path"], base64.b64decode(action["value"]["content"])
                files[name] = content + b" " if name in self.hub.spoils else content
            elif action["key"] == "deletedFile":
                files.pop(action["value"]["path"])
        commit = self.hub.add(repository, files, revision)
        return self._send({"commitUrl": f"{self.hub.address}/{repository}/commit/{commit}", "commitOid": commit})

    def _branch(self, body, repository, revision):
        branches = self.hub.branches[repository]
        if revision in branches:
            return self._send({"error": "exists"}, 409)
        branches[revision] = branches["main"]
        return self._send({})

    def _info(self, body, repository, revision="main"):
        if repository not in self.hub.commits:
            return self._missing("RepoNotFound")
        sha = self.hub.branches[repository].get(revision, revision)
        return self._send({"id": repository, "sha": sha, "private": self.hub.private.get(repository, False)})

    def _create(self, body):
        about = json.loads(body)
        repository = f"{about['organization']}/{about['name']}"
        if repository in self.hub.commits:
            return self._send(
                {"error": "You already created this model repo", "url": f"{self.hub.address}/{repository}"}, 409
            )
        self.hub.add(repository, {".gitattributes": b""})
        self.hub.private[repository] = bool(about.get("private")) or about.get("visibility") == "private"
        return self._send({"url": f"{self.hub.address}/{repository}"})


def _describe(name: str, content: bytes) -> dict:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": blob}
