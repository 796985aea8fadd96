"""A server that speaks as much of the Hugging Face Hub's protocol as models need, and breaks connections on demand."""

import hashlib
import http.server
import json
import re
import socket
import struct
import threading
import time
import urllib.parse
from pathlib import Path

from huggingface_hub import constants, file_download

COMMIT = "c" * 40
NAME = "someone/tiny"


class HubServer:
    """Serves one model from a folder, as long as it is open.

    Attributes:
        url: The endpoint.
        files: Content by name.
        asked: (file, first byte that was asked for) of every request for content, in order.
        breaks: Bytes after which the answers to the next such requests end; what comes after them is whole.
        reset: Whether a connection that breaks is reset, instead of ending.
        tokens: The authorization header of every such request.
        elsewhere: Where contents are kept, as another server; None for here.
        spoilt: Files that come with another content than is stated.
    """

    def __init__(self, files, *, revisions=("main",)):
        self.files = {
            name: content.encode() if isinstance(content, str) else content for name, content in files.items()
        }
        self.revisions = {*revisions, COMMIT}
        self.asked, self.breaks, self.tokens, self.spoilt = [], [], [], set()
        self.reset, self.elsewhere, self.ranges = False, None, True
        owner = self

        class Handler(_Handler):
            hub = owner

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @classmethod
    def of_folder(cls, folder):
        return cls({path.name: path.read_bytes() for path in Path(folder).iterdir()})

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: HubServer

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.respond(body=False)

    def do_GET(self):
        self.respond(body=True)

    def respond(self, *, body):
        path = urllib.parse.unquote(self.path.partition("?")[0]).strip("/")
        if path.startswith("elsewhere/"):
            return self.content(path.removeprefix("elsewhere/"), {}, body)
        api = re.fullmatch(rf"api/models/{NAME}(?:/(revision|tree)/(.+?))?/?", path)
        file = re.fullmatch(rf"{NAME}/resolve/([^/]+)/(.+)", path)
        part, revision = (api[1], api[2]) if api else (None, file[1] if file else None)
        if api is None and file is None:
            return self.answer(b'{"error": "Repository not found"}', body, {"X-Error-Code": "RepoNotFound"}, 404)
        if (revision or "main") not in self.hub.revisions:
            return self.answer(b'{"error": "Invalid rev"}', body, {"X-Error-Code": "RevisionNotFound"}, 404)
        names = sorted(self.hub.files)
        if part == "tree":
            tree = [{"type": "file", "path": n, "oid": "0", "size": len(self.hub.files[n])} for n in names]
            return self.answer(json.dumps(tree).encode(), body, {"Content-Type": "application/json"})
        if file is None:
            info = {"_id": "1", "id": NAME, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
            return self.answer(json.dumps(info).encode(), body, {"Content-Type": "application/json"})
        name = file[2]
        if name not in self.hub.files:
            return self.answer(b"{}", body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, 404)
        content = self.hub.files[name]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if self.hub.elsewhere:
            headers = {**headers, "X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
            headers["Location"] = f"{self.hub.elsewhere}/elsewhere/{name}"
            return self.answer(b"", body, headers, 302)
        return self.content(name, headers, body)

    def content(self, name, headers, body):
        content = self.hub.files[name]
        if name in self.hub.spoilt:
            content = bytes(len(content))
        if not body:
            return self.answer(content, body, headers)
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        self.hub.asked.append((name, start))
        self.hub.tokens.append(self.headers.get("Authorization"))
        status, size = 200, len(content)
        if found and self.hub.ranges:
            status, content = 206, content[start:]
            headers = {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}
        return self.answer(content, body, headers, status, breaks=True)

    def answer(self, content, body, headers, status=200, *, breaks=False):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        after = self.hub.breaks.pop(0) if breaks and self.hub.breaks else len(content)
        self.wfile.write(content[:after])
        if after < len(content):
            self.wfile.flush()
            if self.hub.reset:
                # What has been sent already arrives all the same, if it is given the time.
                threading.Event().wait(0.05)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            self.close_connection = True


def use(server, home, monkeypatch, *, offline=False):
    """Points huggingface_hub, which has read its environment long ago, at a server and an empty home."""
    url = server if isinstance(server, str) else server.url
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(
        file_download, "HUGGINGFACE_CO_URL_TEMPLATE", constants.HUGGINGFACE_CO_URL_TEMPLATE, raising=False
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("zoo.runtime.hub._PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(file_download, "time", _Hasty())


class _Hasty:
    """Python's module `time`, but that nobody sleeps."""

    def __getattr__(self, name):
        return (lambda _: None) if name == "sleep" else getattr(time, name)
