from pathlib import Path

import pytest
from huggingface_hub import constants

from rayalign.rewards.weights import (
    Weights,
    downloaded_path,
    find_address,
    find_file,
    find_folder,
    is_local,
    is_present,
    local_problem,
    short_name,
)

FILES = ("config.json", "model.safetensors|pytorch_model.bin")
HUB = Weights("model", "owner/name", FILES)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of this test's own, and no network: the client would try for half a minute."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def fill(hub: Path, *names: str, repository: str = "owner/name") -> Path:
    """Lays out `names` as the hub's client does."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text("abc")
    for name in names:
        (snapshot / name).write_text(name)
    return snapshot


@pytest.mark.parametrize(
    ("value", "local"),
    [
        ("/some/folder", True),
        ("~/folder", True),
        ("./folder", True),
        ("a/b/c", True),  # a hub id has one slash
        ("weights/model.pt", True),
        ("local-dir:/some/folder", True),
        ("owner/name", False),
        ("bert-base-uncased", False),
        ("laion2b_s32b_b79k", False),  # a tag of open_clip
        ("https://host/model.pt", False),
    ],
)
def test_what_is_a_path(value: str, local: bool) -> None:
    assert is_local(value) == local


def test_an_existing_folder_is_local_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_local("owner/name")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert is_local("owner/name")


def test_local_problems(tmp_path: Path) -> None:
    wanted = "set a folder that holds config.json, model.safetensors or pytorch_model.bin"
    assert local_problem(str(tmp_path / "no"), FILES) == (f"no such file or folder; {wanted}, or a hub id (owner/name)")
    (tmp_path / "config.json").touch()
    lacks = "the folder lacks model.safetensors or pytorch_model.bin"
    assert local_problem(str(tmp_path), FILES) == f"{lacks}; {wanted}"
    (tmp_path / "pytorch_model.bin").touch()
    assert local_problem(f"local-dir:{tmp_path}", FILES) == ""


def test_present_once_all_files_of_the_repository_are(hub: Path) -> None:
    assert not is_present(HUB)
    fill(hub, "config.json")
    assert not is_present(HUB)
    fill(hub, "pytorch_model.bin")
    assert is_present(HUB)
    assert is_present(Weights("model", "", FILES))  # nothing to fetch
    assert not is_present(Weights("model", "no hub id at all", FILES))


def test_a_cached_repository_is_found_without_network(hub: Path) -> None:
    snapshot = fill(hub, "config.json", "model.safetensors")
    assert find_folder("model", "owner/name", FILES) == snapshot
    assert find_file("model", "owner/name", "config.json") == snapshot / "config.json"


def test_without_network_it_says_what_to_set(hub: Path) -> None:
    fill(hub, "config.json")
    with pytest.raises(
        ValueError, match=r"model = 'owner/name': no file or folder here, not in the hub's local cache"
    ) as caught:
        find_folder("model", "owner/name", FILES)
    message = str(caught.value)
    assert (
        "not in the hub's local cache, and the hub gave no config.json, model.safetensors or pytorch_model.bin"
        in message
    )
    assert "set model to a folder that holds them, or see to the network" in message
    with pytest.raises(ValueError, match="tokenizer = 'not a name'"):
        find_folder("tokenizer", "not a name", ["vocab.txt"])


def test_fetches_by_the_name_that_the_repository_has(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    asked = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        if name == "model.safetensors":
            raise EntryNotFoundError("no such file")
        return str(tmp_path / "snapshot" / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert find_folder("model", "owner/name", FILES) == tmp_path / "snapshot"
    assert [name for _, name in asked] == ["config.json", "model.safetensors", "pytorch_model.bin"]


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").touch()
    (tmp_path / "HPS_v2_compressed.pt").touch()
    assert find_file("weights", str(tmp_path / "mine.pt"), "HPS_v2_compressed.pt") == tmp_path / "mine.pt"
    found = find_file("weights", str(tmp_path), "HPS_v2_compressed.pt")
    assert found == tmp_path / "HPS_v2_compressed.pt"
    with pytest.raises(ValueError, match=r"weights = .*/other.pt': no such file or folder; set a folder"):
        find_file("weights", str(tmp_path / "other.pt"), "HPS_v2_compressed.pt")


def test_an_address_is_fetched_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYALIGN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a+b.pth").write_bytes(b"abc")
    address = f"file://{tmp_path}/a%2Bb.pth"
    # sha256 of "abc", FIPS 180-4's example
    right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    weights = Weights("head", address, ())
    with pytest.raises(ValueError, match=r"could not be fetched.*put it at .*a\+b.pth, or set head to a file"):
        find_address("head", address, "0" * 64)
    assert not is_present(weights)  # what has another checksum is not kept
    path = find_address("head", address, right)
    assert (path, path.read_bytes()) == (tmp_path / "cache" / "weights" / "a+b.pth", b"abc")
    assert is_present(weights)
    (tmp_path / "a+b.pth").unlink()
    assert find_address("head", address, right) == path == downloaded_path(address)
    with pytest.raises(ValueError, match="could not be fetched"):
        find_address("head", f"file://{tmp_path}/gone.pth", right)


def test_short_names() -> None:
    assert short_name("owner/name") == "owner/name"
    assert short_name("https://host/some/a%2Bb.pth") == "a+b.pth"
