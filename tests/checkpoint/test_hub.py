"""Checkpoints to and from the Hub: huggingface_hub's own client against tests/hub_server.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_client import ROOT, Client, contents, make_checkpoint, publish, weights_path
from hub_server import READER, WRITER, Hub, Repository, cut, first, lost_answer, page, serve, status


@pytest.fixture(scope="module")
def clients(tmp_path_factory) -> Iterator[Callable[..., Client]]:
    """Starts clients, all with one cache and each combination of settings once."""
    home = tmp_path_factory.mktemp("hub") / "home"
    started: dict[str, Client] = {}

    def client(endpoint: str, token: str | None = None, **settings: str) -> Client:
        key = json.dumps([endpoint, token, settings])
        if key not in started:
            started[key] = Client(home, endpoint, token, **settings)
        return started[key]

    yield client
    for process in started.values():
        process.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


@pytest.fixture
def hub(server: Hub) -> Hub:
    server.forget()
    return server


@pytest.fixture
def client(clients, hub: Hub) -> Client:
    """One with write access and an empty cache."""
    client = clients(hub.url, WRITER)
    client.forget_cache()
    return client


@pytest.fixture
def stranded(clients) -> Client:
    """One without network and login; nothing listens at port 9 (discard)."""
    return clients("http://127.0.0.1:9")


@pytest.fixture
def repo_id(request) -> str:
    return "user/" + re.sub(r"\W+", "-", request.node.name).strip("-")


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return make_checkpoint(tmp_path / "checkpoint")


def test_what_is_pushed_in_one_commit_comes_back_the_same(hub, client, checkpoint, repo_id):
    pushed = client("push", checkpoint, repo_id)
    repository = hub.repositories[repo_id]
    assert pushed.error == "", pushed
    assert pushed.result == f"{hub.url}/{repo_id}/commit/{repository.refs['main']}"
    assert [c.title for c in repository.commits.values()] == [
        "initial commit",
        "Captioner checkpoint",
    ]
    assert not repository.private
    downloaded = client("download", repo_id)
    assert contents(Path(downloaded.result)) == contents(checkpoint)
    assert contents(checkpoint).items() == repository.files.items() - {
        (".gitattributes", repository.files[".gitattributes"])
    }
    storage = [r for r in hub.requests if r.server == "storage"]
    assert {r.method for r in storage} == {"PUT", "GET"}
    assert not any("authorization" in r.headers for r in storage)


def test_an_unchanged_checkpoint_is_downloaded_and_pushed_once(hub, client, checkpoint, repo_id):
    first_url = client("push", checkpoint, repo_id).result
    assert client("push", checkpoint, repo_id).result == first_url
    folder = client("download", repo_id).result
    hub.forget()
    again = client("download", repo_id)
    assert (again.result, again.notes) == (folder, "")
    assert [r.path for r in hub.requests] == [f"/api/models/{repo_id}"]


def test_a_push_changes_what_changed_and_removes_what_is_gone(hub, client, tmp_path, repo_id):
    client("push", make_checkpoint(tmp_path / "old"), repo_id)
    hub.repositories[repo_id].edit("notes.txt", b"of the owner's")
    new = make_checkpoint(tmp_path / "new", seed=1, weights="imagenet")
    (new / "notes.tmp").write_text("not part of a checkpoint")
    (new / "examples.png").write_bytes(b"\x89PNG a further picture")
    assert client("push", new, repo_id).error == ""
    files = hub.repositories[repo_id].files
    assert set(files) == {
        *("config.json", "vocabulary.json", "decoder.safetensors", "metrics.json", "README.md"),
        *("loss.png", "examples.png", "notes.txt", ".gitattributes"),
    }
    assert files["decoder.safetensors"] == (new / "decoder.safetensors").read_bytes()
    assert len(hub.repositories[repo_id].commits) == 4


def test_a_private_repository(hub, client, clients, checkpoint, repo_id):
    client("push", checkpoint, repo_id, private=True)
    assert hub.repositories[repo_id].private
    assert client("download", repo_id).error == ""
    client.forget_cache()
    stranger = clients(hub.url)("download", repo_id)
    assert stranger.error == "CheckpointError"
    assert "if the repository is private, log in with `hf auth login`" in stranger.message


def test_what_should_be_private_is_not_pushed_to_a_public_repository(
    hub, client, checkpoint, repo_id
):
    hub.repositories[repo_id] = Repository()
    hub.repositories[repo_id].commit({}, "public")
    refused = client("push", checkpoint, repo_id, private=True)
    assert refused.error == "HubError" and "is public, so nothing was pushed" in refused.message
    assert hub.count("POST", ".*commit.*") == hub.count("PUT", ".*") == 0


def test_a_card_edited_on_the_hub_is_kept(hub, client, tmp_path, repo_id):
    client("push", make_checkpoint(tmp_path / "0"), repo_id)
    repository = hub.repositories[repo_id]
    updated = client("push", make_checkpoint(tmp_path / "1", seed=1), repo_id)
    assert updated.notes == ""
    assert repository.files["README.md"] == (tmp_path / "1" / "README.md").read_bytes()
    edited = repository.files["README.md"].replace(b"## Limits", b"Ask Ada.\n\n## Limits")
    repository.edit("README.md", edited)
    kept = client("push", make_checkpoint(tmp_path / "2", seed=2), repo_id)
    assert kept.error == "" and "was edited on the Hub and stays as it is" in kept.notes
    assert repository.files["README.md"] == edited
    assert repository.files["metrics.json"] == (tmp_path / "2" / "metrics.json").read_bytes()
    replaced = client("push", tmp_path / "2", repo_id, replace_card=True)
    assert (replaced.error, replaced.notes) == ("", "")
    assert repository.files["README.md"] == (tmp_path / "2" / "README.md").read_bytes()


def test_a_card_edited_during_the_push_is_kept(hub, client, tmp_path, repo_id):
    client("push", make_checkpoint(tmp_path / "0"), repo_id)
    repository, mine = hub.repositories[repo_id], b"---\nlicense: mit\n---\nMy own words."
    edit = first(lambda: repository.edit("README.md", mine))
    hub.on("POST", f"/api/models/{repo_id}/commit/main", edit)
    pushed = client("push", make_checkpoint(tmp_path / "1", seed=1), repo_id)
    assert pushed.error == "" and "stays as it is" in pushed.notes
    assert repository.files["README.md"] == mine
    new = (tmp_path / "1" / "decoder.safetensors").read_bytes()
    assert repository.files["decoder.safetensors"] == new


def test_revisions(hub, client, tmp_path, repo_id):
    folders = [make_checkpoint(tmp_path / str(seed), seed) for seed in (0, 1)]
    client("push", folders[0], repo_id)
    refs = hub.repositories[repo_id].refs
    refs["v1"], refs["trial"] = refs["main"], refs["main"]
    client("push", folders[1], repo_id, revision="trial")
    assert contents(Path(client("download", repo_id).result)) == contents(folders[0])
    client("push", folders[1], repo_id)
    for revision, expected in ((None, 1), ("trial", 1), ("v1", 0), (refs["v1"], 0)):
        folder = Path(client("download", repo_id, revision=revision).result)
        assert contents(folder) == contents(folders[expected])
    hub.forget()
    assert Path(client("download", repo_id, revision=refs["v1"]).result).name == refs["v1"]
    assert hub.requests == []  # a commit never changes
    missing = client("download", repo_id, revision="v2")
    assert missing.error == "CheckpointError" and "no branch, tag or commit v2" in missing.message
    missing = client("push", folders[0], repo_id, revision="v2")
    assert missing.error == "HubError" and "no branch v2" in missing.message


@pytest.mark.parametrize(
    ("code", "headers", "words"),
    [
        (401, {}, "does not accept the access token"),
        (403, {}, "the access token does not allow to write it"),
        (409, {}, "somebody else is changing the repository"),
        (413, {}, "the Hub refused (413): no"),
        (429, {"Retry_After": "3600"}, "asked too often (429). Try again in 3600 seconds"),
        (500, {}, "trouble of its own (500)"),
    ],
)
def test_pushes_that_fail_say_why(hub, client, checkpoint, repo_id, code, headers, words):
    hub.on("POST", f"/api/models/{repo_id}/commit/main", *[status(code, **headers)] * 2)
    failed = client("push", checkpoint, repo_id, attempts=2)
    assert failed.error == "HubError" and words in failed.message
    assert failed.message.startswith(f"{checkpoint} was not pushed to {repo_id}: ")
    assert len(hub.repositories[repo_id].commits) == 1
    hub.forget()
    assert client("push", checkpoint, repo_id).error == ""
    assert len(hub.repositories[repo_id].commits) == 2


def test_pushes_survive_a_bad_day(hub, client, checkpoint, repo_id):
    hub.on("POST", "/api/repos/create", status(429, Retry_After="3"))
    hub.on("PUT", weights_path(checkpoint), cut)
    hub.on("PUT", weights_path(checkpoint, "backbone.safetensors"), status(500))
    hub.on("POST", f"/api/models/{repo_id}/commit/main", lost_answer)
    pushed = client("push", checkpoint, repo_id)
    repository = hub.repositories[repo_id]
    assert pushed.error == "", pushed
    assert pushed.result == f"{hub.url}/{repo_id}/commit/{repository.refs['main']}"
    assert len(repository.commits) == 2
    assert contents(checkpoint).items() <= repository.files.items()
    assert "(429): trying again in 3 s" in pushed.notes


def test_pushes_that_cannot_begin(hub, client, clients, stranded, checkpoint, repo_id):
    alone = stranded("push", checkpoint, repo_id)
    assert alone.error == "HubError" and "needs an access token" in alone.message
    alone = stranded("push", checkpoint, repo_id, token=WRITER, attempts=1)
    assert alone.error == "HubError" and "cannot be reached (ConnectError)" in alone.message
    quoted = stranded("push", checkpoint, repo_id, token="\u201chf_x\u201d")
    assert "the access token has characters that no token has" in quoted.message
    assert quoted.notes == "", "trying again would not help"
    assert client("push", checkpoint, "a b").message.endswith("a Hub id has the form USER/NAME.")
    (checkpoint / "decoder.safetensors").write_bytes(b"half")
    broken = client("push", checkpoint, repo_id)
    assert broken.error == "CheckpointError" and "decoder.safetensors is missing" in broken.message
    assert hub.requests == []


def test_cut_connections_give_whole_files_or_none(hub, client, tmp_path, repo_id):
    checkpoint = make_checkpoint(tmp_path / "large", size=24 << 20)
    publish(hub, repo_id, checkpoint)
    path = weights_path(checkpoint)
    hub.on("GET", path, cut, status(403))
    failed = client("download", repo_id)
    assert failed.error == "CheckpointError" and "could not be downloaded" in failed.message
    cached = list((client.home / "hub").rglob("*"))
    assert not any("incomplete" in p.name or p.name == "decoder.safetensors" for p in cached)
    assert path[5:] not in {p.name for p in cached}
    hub.forget()
    hub.on("GET", path, cut)
    whole = client("download", repo_id)
    assert contents(Path(whole.result)) == contents(checkpoint)
    resumed = [r.headers.get("range") for r in hub.requests if r.path == path]
    assert resumed == [None, f"bytes={10 << 20}-"]  # the client writes 10 MiB at a time


def test_what_is_damaged_in_the_cache_is_fetched_again(hub, client, checkpoint, repo_id):
    publish(hub, repo_id, checkpoint)
    folder = Path(client("download", repo_id).result)
    os.truncate(folder / "decoder.safetensors", 1000)
    again = client("download", repo_id)
    assert contents(Path(again.result)) == contents(checkpoint)
    assert "decoder.safetensors is damaged, so it is downloaded again" in again.notes


def test_without_network_the_cache_is_used(hub, client, clients, stranded, checkpoint, repo_id):
    publish(hub, repo_id, checkpoint)
    nothing = stranded("download", repo_id, attempts=2)
    assert nothing.error == "CheckpointError"
    assert nothing.message == (
        f"{repo_id} is not a directory here, and could not be downloaded: the Hub cannot be "
        "reached (ConnectError). Connect to the network and try again."
    )
    folder = client("download", repo_id).result
    offline = clients(hub.url, HF_HUB_OFFLINE="1")
    hub.forget()
    for other, words in ((stranded, "(ConnectError)"), (offline, "HF_HUB_OFFLINE is set")):
        cached = other("download", repo_id)
        assert cached.result == folder
        assert words in cached.notes and "local cache is used" in cached.notes
    assert hub.requests == []


@pytest.mark.parametrize("step", [cut, lost_answer, page, status(503), status(429)])
def test_with_a_flaky_network_the_cache_is_used(hub, client, checkpoint, step):
    publish(hub, "user/flaky", checkpoint)
    folder = client("download", "user/flaky").result
    hub.on("GET", "/api/models/user/flaky", step)
    cached = client("download", "user/flaky")
    assert cached.result == folder and "local cache is used" in cached.notes


def test_half_a_new_commit_does_not_hide_the_old_one(
    hub, client, stranded, checkpoint, tmp_path, repo_id
):
    publish(hub, repo_id, checkpoint)
    old = client("download", repo_id).result
    new = make_checkpoint(tmp_path / "new", seed=1)
    commit = publish(hub, repo_id, new)
    hub.on("GET", weights_path(new), *[status(503)] * 9)
    cached = client("download", repo_id)
    assert cached.result == old and "trouble of its own (503)" in cached.notes
    assert stranded("download", repo_id).result == old
    hub.forget()
    assert Path(client("download", repo_id).result).name == commit
    assert contents(Path(stranded("download", repo_id).result)) == contents(new)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (status(401), "does not accept the access token"),
        (status(403), "does not allow to read it"),
        (status(404), "shows no repository of this name"),
        (status(403, X_Error_Code="GatedRepo"), "its owner grants access on request"),
        (status(429, Retry_After="900"), "Try again in 900 seconds"),
        (status(500), "trouble of its own (500)"),
        (page, "the answer is not the Hub's"),
    ],
)
def test_downloads_that_fail_say_why(hub, client, checkpoint, step, words):
    publish(hub, "user/failing", checkpoint)
    hub.on("GET", "/api/models/user/failing", step)
    failed = client("download", "user/failing", attempts=1)
    assert failed.error == "CheckpointError" and words in failed.message
    assert client("download", "user/failing").error == ""


def test_a_cache_that_cannot_be_written_to_is_named(hub, checkpoint, tmp_path):
    publish(hub, "user/closed", checkpoint)
    (tmp_path / "file").touch()
    client = Client(tmp_path / "file", hub.url, None)
    failed = client("download", "user/closed")
    client.close()
    assert failed.error == "CheckpointError"
    assert "cannot be written to (Not a directory)" in failed.message
    assert failed.message.endswith("or give another HF_HOME.")


def test_what_is_refused_is_not_taken_from_the_cache(hub, client, clients, checkpoint, repo_id):
    publish(hub, repo_id, checkpoint)
    client("download", repo_id)
    hub.repositories[repo_id].private = True
    refused = clients(hub.url)("download", repo_id)
    assert (
        refused.error == "CheckpointError" and "HF_HUB_OFFLINE=1 uses the copy" in refused.message
    )


def test_repositories_without_a_whole_checkpoint(hub, client, checkpoint, repo_id):
    hub.repositories[repo_id] = Repository()
    hub.repositories[repo_id].commit({"model.gguf": b"another model"}, "foreign")
    assert "not a whole checkpoint of this program" in client("download", repo_id).message
    publish(hub, repo_id, checkpoint)
    hub.repositories[repo_id].edit("decoder.safetensors", b"other weights")
    assert "not the file that its config.json names" in client("download", repo_id).message
    assert "neither a checkpoint directory nor" in client("download", "a b").message


def test_the_bundled_checkpoint_by_way_of_the_hub(hub, client, repo_id):
    bundled = ROOT / "assets" / "checkpoint"
    assert client("push", bundled, repo_id).message == ""
    program = (
        "import sys; from captioner import Captioner;"
        "c = Captioner.from_pretrained(sys.argv[1], revision='main');"
        "print(len(c.vocabulary), c.config.backbone.fingerprint)"
    )
    settings = {"HF_HOME": str(client.home), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    run = subprocess.run(
        [sys.executable, "-c", program, repo_id],
        env=os.environ | settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    config = json.loads((bundled / "config.json").read_text())
    words, fingerprint = run.stdout.split()
    assert int(words) == config["model"]["vocabulary_size"]
    assert fingerprint == config["backbone"]["fingerprint"]
    assert contents(Path(client("download", repo_id).result)) == contents(bundled)


def test_tokens_are_in_no_file_and_no_log(hub, client, clients, checkpoint, repo_id):
    clients(hub.url)("push", checkpoint, repo_id, token=READER)
    client("push", checkpoint, repo_id, token="hf_expiredSecretToken2222222222222")
    hub.on("POST", "/api/repos/create", status(400, "bad: token-without-prefix, hf_abcdef"))
    echoed = client("push", checkpoint, repo_id, token="token-without-prefix")
    assert echoed.error == "HubError" and echoed.message.endswith("(400): bad: ***, ***")
    assert client("push", checkpoint, repo_id).error == ""
    used = {r.headers.get("authorization") for r in hub.requests}
    assert {f"Bearer {WRITER}", f"Bearer {READER}"} <= used
    place = client.home.parent
    files = [p for p in place.rglob("*") if p.is_file()]
    assert any("log-" in p.name and p.stat().st_size > 10_000 for p in files)
    assert [p for p in files if b"SecretToken" in p.read_bytes()] == []
