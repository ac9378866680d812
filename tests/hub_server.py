"""A stand-in for the Hugging Face Hub: just what creating a Space and committing files to it need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = (".safetensors", ".bin")  # files that the Hub keeps out of git


class Hub:
    """Knows one token; ``files`` is what the Space holds, by path; ``failing`` is a status for every answer."""

    def __init__(self, token: str) -> None:
        self.token, self.failing = token, 0
        self.spaces: dict[str, str] = {}  # name → SDK
        self.files: dict[str, bytes] = {}
        self.large: set[str] = set()
        self.commits: list[str] = []
        self.requests: list[str] = []
        self._objects: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                hub.serve(self)

            def do_POST(self) -> None:
                hub.serve(self)

            def do_PUT(self) -> None:
                hub.serve(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path = request.path.split("?")[0]
        self.requests.append(f"{request.command} {path}")
        if request.headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int(request.rfile.readline(), 16):
                body += request.rfile.read(size)
                request.rfile.readline()
            request.rfile.readline()
        else:
            body = request.rfile.read(int(request.headers.get("content-length") or 0))
        status, value = self._answer(request, path, body)
        data = json.dumps(value).encode()
        request.send_response(status)
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _answer(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> tuple[int, object]:
        if self.failing:
            return self.failing, {"error": f"no, {self.token}"}
        if path.startswith("/objects/"):  # the store of large files: it has no token, but knows what it expects
            oid = path.rpartition("/")[2]
            if hashlib.sha256(body).hexdigest() != oid:
                return 400, {"error": "other content than announced"}
            self._objects[oid] = body
            return 200, {}
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if asked["organization"] != "me":
                return 403, {"error": "You don't have the rights to create a repo there"}
            if name in self.spaces:
                return 409, {"error": "You already created this repo", "url": f"{self.url}/spaces/{name}"}
            self.spaces[name] = asked["sdk"] if asked["type"] == "space" else "?"
            self.files[".gitattributes"] = b"*.safetensors filter=lfs\n"
            return 200, {"url": f"{self.url}/spaces/{name}", "name": name}
        if path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            return (200, {}) if text.startswith("---\n") else (400, {"errors": [{"message": "no metadata"}]})
        if "/tree/" in path:
            return 200, [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in self.files.items()
            ]
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [
                {"path": name, "uploadMode": "lfs" if name.endswith(LARGE) else "regular", "shouldIgnore": False}
                for name in names
            ]
            return 200, {"files": modes}
        if path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            return 200, {
                "transfer": "basic",
                "objects": [
                    {**row, "actions": {"upload": {"href": f"{self.url}/objects/{row['oid']}"}}} for row in wanted
                ],
            }
        if "/commit/" in path:
            for line in body.splitlines():
                row = json.loads(line)
                value = row["value"]
                if row["key"] == "header":
                    self.commits.append(value["summary"])
                elif row["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif row["key"] == "lfsFile":
                    self.files[value["path"]] = self._objects[value["oid"]]
                    self.large.add(value["path"])
                elif row["key"] == "deletedFile":
                    del self.files[value["path"]]
            address = self.url + path.removeprefix("/api").replace("/main", f"/{'1' * 40}")
            return 200, {"commitUrl": address, "commitOid": "1" * 40}
        return 404, {"error": "Repository not found"}

    def close(self) -> None:
        """Stop serving."""
        self.http.shutdown()
        self.http.server_close()
