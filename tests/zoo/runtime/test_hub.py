"""Downloads from the Hub: only what is read, of the revision that was asked for, whole however often the net breaks."""

import dataclasses

import pytest

from tests.zoo.runtime.hub_server import COMMIT, NAME, HubServer, use
from zoo.config import UserError
from zoo.runtime import hub
from zoo.runtime.hub import HubReference

WEIGHTS = bytes(range(256)) * 40
FILES = {
    "config.json": '{"a": 1}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"never",
    "onnx/config.json": "never",
    "onnx/model.safetensors": b"never",
    "quantized.gguf": b"GGUF" * 50,
    "folder/other [1].gguf": b"GGUF" * 60,
}
PATTERNS = {"patterns": ("*.json", "model*.safetensors"), "large": ("*.safetensors",)}


def fetch(text=NAME, **changes):
    listing = hub.list_files(HubReference.parse(text), what="checkpoint")
    return hub.download(listing, **PATTERNS | changes, what="checkpoint")


@pytest.fixture
def server(tmp_path, monkeypatch):
    with HubServer(FILES, revisions=("main", "v1.0")) as made:
        use(made, tmp_path / "home", monkeypatch)
        yield made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", ("owner/name", None, None)),
        ("gpt2", ("gpt2", None, None)),
        ("owner/name@v1.0", ("owner/name", None, "v1.0")),
        ("owner/name@refs/pr/1", ("owner/name", None, "refs/pr/1")),
        ("owner/name/a.gguf", ("owner/name", "a.gguf", None)),
        ("owner/na-me/sub/a b.Q4_0.gguf@main", ("owner/na-me", "sub/a b.Q4_0.gguf", "main")),
        ("a/b/c", None),
        ("a/b/c.safetensors", None),
        ("a/../b", None),
        ("a/b/../c.gguf", None),
        ("a/b@../c", None),
        ("a/b@", None),
        ("", None),
        ("/a/b", None),
        ("a b/c", None),
        ("https://a/b", None),
    ],
)
def test_a_reference_names_a_model_a_file_and_a_revision(text, expected):
    found = HubReference.parse(text)
    assert (None if found is None else (found.name, found.file, found.revision)) == expected


def test_only_what_is_read_is_downloaded_and_once(server):
    folder = fetch()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "config.json": b'{"a": 1}',
        "model.safetensors": WEIGHTS,
    }
    assert folder.name == COMMIT
    assert sorted(server.asked) == [("config.json", 0), ("model.safetensors", 0)]
    assert fetch() == folder
    assert len(server.asked) == 2


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_breaks_is_resumed_where_it_broke(reset, server):
    server.reset, server.breaks = reset, [1000, 500, 2000]
    assert (fetch(patterns=["model*"]) / "model.safetensors").read_bytes() == WEIGHTS
    assert server.asked == [("model.safetensors", start) for start in (0, 1000, 1500, 3500)]


def test_a_download_that_was_given_up_goes_on_in_another_process(server, tmp_path):
    server.breaks = [4000] + [0] * 20
    with pytest.raises(UserError, match="the Hub did not give it") as raised:
        fetch()
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "home").rglob("model.safetensors"))
    server.breaks, server.asked = [], []
    assert (fetch() / "model.safetensors").read_bytes() == WEIGHTS
    assert ("model.safetensors", 4000) in server.asked
    assert not list((tmp_path / "home").rglob("*.part"))


def test_a_server_that_begins_anew_is_listened_to_from_the_start(server):
    server.ranges, server.breaks = False, [3000]
    assert (fetch() / "model.safetensors").read_bytes() == WEIGHTS


def test_a_part_that_is_too_long_is_begun_anew(server, tmp_path):
    server.breaks = [10] + [0] * 20
    with pytest.raises(UserError):
        fetch()
    (part,) = (tmp_path / "home").rglob("*.part")
    part.write_bytes(bytes(2 * len(WEIGHTS)))
    server.breaks = []
    assert (fetch() / "model.safetensors").read_bytes() == WEIGHTS


def test_another_content_than_the_hub_states_is_thrown_away(server, tmp_path):
    server.spoilt = {"model.safetensors"}
    with pytest.raises(UserError, match=r"model\.safetensors came with another content than the Hub states"):
        fetch()
    assert not list((tmp_path / "home").rglob("model.safetensors"))
    server.spoilt = set()
    assert (fetch() / "model.safetensors").read_bytes() == WEIGHTS


def test_a_revision_is_pinned(server):
    assert fetch(f"{NAME}@v1.0").name == COMMIT
    assert fetch(f"{NAME}@{COMMIT}").name == COMMIT
    with pytest.raises(UserError, match=r"must have the revision; got 'v9'"):
        fetch(f"{NAME}@v9")


@pytest.mark.parametrize("file", ["quantized.gguf", "folder/other [1].gguf"])
def test_one_file_comes_alone(file, server):
    path = fetch(f"{NAME}/{file}")
    assert path.read_bytes() == FILES[file]
    assert server.asked == [(file, 0)]


def test_a_file_that_there_is_not_is_named_with_those_that_there_are(server):
    with pytest.raises(UserError, match=r"must hold none\.gguf; it does not \(choices: .*quantized\.gguf"):
        fetch(f"{NAME}/none.gguf")


@pytest.mark.parametrize("reference", [NAME, f"{NAME}@v1.0", f"{NAME}/quantized.gguf"])
def test_offline_what_was_downloaded_is_found_and_nothing_is_asked(reference, server, tmp_path, monkeypatch):
    path = fetch(reference)
    use("http://127.0.0.1:9", tmp_path / "home", monkeypatch, offline=True)
    assert fetch(reference) == path
    monkeypatch.setattr("zoo.runtime.hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set, and not all of it was downloaded before"):
        fetch(reference)


def test_without_a_network_what_was_downloaded_is_found(server, tmp_path, monkeypatch):
    path = fetch()
    use("http://127.0.0.1:9", tmp_path / "home", monkeypatch)
    assert fetch() == path
    with pytest.raises(UserError, match="the Hub did not give it") as raised:
        fetch("someone/else")
    assert "\n" not in str(raised.value)


def test_what_the_hub_does_not_have_is_one_line(server):
    with pytest.raises(UserError, match="'someone/else' is no folder here, and the Hub did not give it") as raised:
        fetch("someone/else")
    assert "\n" not in str(raised.value)


def test_a_token_is_for_the_hub_and_not_for_where_it_keeps_its_files(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch()
    assert set(server.tokens) == {"Bearer hf_secret"}
    with HubServer(FILES) as storage:
        server.elsewhere, server.files = storage.url, {**server.files, "model.safetensors": WEIGHTS + b"new"}
        storage.files = server.files
        fetch(patterns=["model*"])
        assert storage.asked == [("model.safetensors", 0)]
        assert storage.tokens == [None]


@pytest.mark.parametrize("etag", ["../../../evil", "", "A" * 64])
def test_a_servers_words_name_no_file(etag, server, tmp_path, monkeypatch):
    real = hub.get_hf_file_metadata
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda *a, **k: dataclasses.replace(real(*a, **k), etag=etag))
    assert (fetch() / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(tmp_path.rglob("*evil*"))
