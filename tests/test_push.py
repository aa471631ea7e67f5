"""Publishing a package: what is refused before the network is touched, what goes, and what the hub may answer.

The hub is a server on this machine that knows the requests huggingface_hub makes of it; the client is real.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

from converter.cli.main import run
from converter.errors import HubError, PackageError, UsageError
from converter.packages.package import write_record
from converter.packages.push import push_package

Capture = pytest.CaptureFixture[str]


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class FakeHub:
    """One repository, and the few requests that are made of it. `refuse` maps a word in a path to a status."""

    private: bool | None = None
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    sent: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        for word, status in self.refuse.items():
            if word in path:
                return status, {"error": "not today"}
        parts = path.partition("?")[0].strip("/").split("/")
        match (method, *parts):
            case ("POST", "api", "repos", "create"):
                if self.private is not None:
                    return 409, {"error": "exists", "url": "https://huggingface.co/me/model"}
                asked = json.loads(body)
                self.private = asked.get("visibility") == "private" or bool(asked.get("private"))
                return 200, {"url": "https://huggingface.co/me/model", "name": "me/model"}
            case ("POST", "api", "validate-yaml"):
                return 200, {"errors": [], "warnings": []}
            case ("GET", "api", "models", _, _, *rest):
                files = self.branches[rest[1] if rest else "main"]
                rows = [{"rfilename": name} for name in files]
                return 200, {"id": "me/model", "private": self.private, "sha": "0" * 40, "siblings": rows}
            case ("POST", "api", "models", _, _, "branch", name):
                self.branches[name] = {}
                return 200, {}
            case ("POST", "api", "models", _, _, "preupload", branch):
                return 200, {"files": [self.mode(branch, file["path"]) for file in json.loads(body)["files"]]}
            case ("POST", "api", "models", _, _, "commit", branch):
                return 200, self.commit(branch, body)
        return 404, {"error": f"the fake hub has no {method} {path}"}

    def mode(self, branch: str, path: str) -> dict[str, Any]:
        there = self.branches[branch].get(path)
        oid = None if there is None else git_oid(there)
        return {"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": oid}

    def commit(self, branch: str, body: bytes) -> dict[str, str]:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.branches[branch][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                self.sent.append(line["value"]["path"])
        return {
            "commitUrl": "https://huggingface.co/me/model/commit/1",
            "commitOid": "1" * 40,
            "pullRequestUrl": "",
        }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fake = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.requests.append(self.path)
            if token := self.headers.get("Authorization"):
                fake.tokens.add(token)
            status, answer = fake.answer(self.command, self.path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = respond  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test output free of requests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text("[]")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Card\n")
    write_record(folder, {"parity": {"mode": "full", "passed": True}})
    return folder


FILES = {"config.json", "1_Pooling/config.json", "README.md", "converter.json"}


def contents(package: Path) -> dict[str, bytes]:
    return {name: (package / name).read_bytes() for name in FILES}


# --- what goes ---


def test_a_package_goes_whole_into_a_private_repository(package: Path, hub: FakeHub) -> None:
    push = push_package(package, "me/model", token="hf_mine")
    assert hub.private is True
    assert hub.branches["main"] == contents(package)
    assert hub.tokens == {"Bearer hf_mine"}
    assert push.url.endswith("/me/model")
    assert {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()} == FILES


def test_public_is_said_aloud(package: Path, hub: FakeHub) -> None:
    push_package(package, "me/model", token="t", public=True)
    assert hub.private is False


def test_a_branch_is_made_and_main_stays_as_it_is(package: Path, hub: FakeHub) -> None:
    hub.private, hub.branches["main"] = True, {"old.txt": b"old"}
    push = push_package(package, "me/model", token="t", revision="v2")
    assert hub.branches == {"main": {"old.txt": b"old"}, "v2": contents(package)}
    assert push.url.endswith("/me/model/tree/v2")


def test_a_broken_upload_goes_on_where_it_stopped(package: Path, hub: FakeHub) -> None:
    hub.refuse = {"/commit/": 403}
    with pytest.raises(HubError):
        push_package(package, "me/model", token="t")
    hub.refuse = {}
    hub.branches["main"]["config.json"] = (package / "config.json").read_bytes()
    push_package(package, "me/model", token="t")
    assert set(hub.sent) == FILES - {"config.json"}
    hub.sent.clear()
    push_package(package, "me/model", token="t")
    assert not hub.sent


def test_what_is_not_recorded_stays_here_and_what_is_not_ours_stays_there(
    package: Path, hub: FakeHub, capsys: Capture
) -> None:
    (package / "secrets.txt").write_text("mine")
    hub.private, hub.branches["main"] = True, {"model.safetensors": b"theirs", ".gitattributes": b""}
    assert run(["push", str(package), "me/model", "--token", "t"]) == 0
    out = capsys.readouterr().out
    assert "not recorded, stays here: secrets.txt" in out
    assert "stays in me/model: model.safetensors" in out
    assert ".gitattributes" not in out
    assert "secrets.txt" not in hub.branches["main"]


def test_an_edited_card_goes_as_it_was_edited(package: Path, hub: FakeHub) -> None:
    (package / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    push_package(package, "me/model", token="t")
    assert hub.branches["main"]["README.md"].endswith(b"# Mine\n")


# --- a dry run ---


def test_a_dry_run_lists_files_and_sizes_and_sends_nothing(
    package: Path, hub: FakeHub, capsys: Capture
) -> None:
    hub.refuse = {"/": 500}
    assert run(["push", str(package), "me/model", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "1_Pooling/config.json    2 B" in out
    assert "would push 4 files" in out
    assert "me/model (private); nothing was sent" in out
    assert run(["push", str(package), "me/model", "--dry-run", "--public", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert set(planned["files"]) == FILES
    assert (planned["private"], planned["url"]) == (False, "")
    assert not hub.requests


# --- what is refused ---


def test_a_package_that_is_not_what_was_recorded_is_refused(package: Path, hub: FakeHub) -> None:
    (package / "config.json").write_text("[]")
    with pytest.raises(PackageError, match=r"config\.json was altered"):
        push_package(package, "me/model", token="t")
    (package / "config.json").unlink()
    with pytest.raises(PackageError, match=r"config\.json is missing"):
        push_package(package, "me/model", token="t", dry_run=True)
    assert not hub.requests


def test_a_package_that_failed_parity_is_refused(package: Path, hub: FakeHub) -> None:
    write_record(package, {"parity": {"mode": "full", "passed": False}})
    with pytest.raises(PackageError, match="failed parity"):
        push_package(package, "me/model", token="t")


@pytest.mark.parametrize("repo", ["a/b/c", "-x", "with space", "me/..", ""])
def test_a_name_that_cannot_be_is_wrong_usage(package: Path, repo: str) -> None:
    with pytest.raises(UsageError, match="not a valid repository name"):
        push_package(package, repo, dry_run=True)


def test_a_public_repository_is_not_filled_by_the_way(package: Path, hub: FakeHub) -> None:
    hub.private = False
    with pytest.raises(UsageError, match="exists and is public"):
        push_package(package, "me/model", token="t")
    assert not hub.branches["main"]
    push_package(package, "me/model", token="t", public=True)
    assert set(hub.branches["main"]) == FILES


@pytest.mark.parametrize(
    ("refused", "status", "words"),
    [
        ("/api/", 401, "does not let this token write"),
        ("/commit/", 403, "does not let this token write"),
        ("/preupload/", 413, r"refuses me/model \(413\): not today"),
    ],
)
def test_what_the_hub_refuses_is_told(
    package: Path, hub: FakeHub, refused: str, status: int, words: str
) -> None:
    hub.refuse = {refused: status}
    with pytest.raises(HubError, match=words):
        push_package(package, "me/model", token="t")


def test_a_hub_that_is_not_there_is_told(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert run(["push", str(package), "me/model", "--token", "t"]) == 1
    assert "the upload to me/model was interrupted" in capsys.readouterr().err
