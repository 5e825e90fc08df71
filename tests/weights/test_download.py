from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from weight_servers import CONTENT, OTHER_CONTENT, Behaviour, serve, some_weights

from ymir_tmi.errors import DownloadError, ModelError
from ymir_tmi.weights import cache as cache_module
from ymir_tmi.weights import table, transfer
from ymir_tmi.weights.cache import cache_folder, verify
from ymir_tmi.weights.download import download
from ymir_tmi.weights.table import OfficialWeights

PLACE = "/models/v1/some-file.pth"


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    with serve({PLACE: CONTENT}) as found:
        yield found


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[OfficialWeights]:
    """The list of weights, for tests to fill."""
    found: list[OfficialWeights] = []
    for module in (table, cache_module):
        monkeypatch.setattr(module, "official_weights", lambda: tuple(found))
    return found


@pytest.fixture
def server_of_some(server: tuple[str, Behaviour], rows: list[OfficialWeights]) -> Behaviour:
    """A server that has the only weights in the list."""
    rows.append(some_weights(server[0] + PLACE))
    return server[1]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_and_checked(server_of_some: Behaviour, tmp_path: Path) -> None:
    found = download(["some"], cache=tmp_path / "new" / "cache", quiet=True)
    (file,) = found.files
    assert Path(file.path).read_bytes() == CONTENT
    assert (file.fetched, file.checked, file.licence) == (True, True, "MIT")
    assert names_in(tmp_path / "new" / "cache") == ["some-file.pth"]
    assert "checksum right, licence MIT" in found.to_text()


def test_a_file_that_is_there_is_not_fetched_again(server_of_some: Behaviour, tmp_path: Path) -> None:
    download(["some"], cache=tmp_path, quiet=True)
    (file,) = download(["some"], cache=tmp_path, quiet=True).files
    assert not file.fetched
    assert len(server_of_some.asked) == 1


def test_a_wrong_file_that_is_there_is_replaced(server_of_some: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "some-file.pth").write_bytes(b"wrong")
    download(["some"], cache=tmp_path, quiet=True)
    assert (tmp_path / "some-file.pth").read_bytes() == CONTENT


def test_a_broken_transfer_is_gone_on_with(server_of_some: Behaviour, tmp_path: Path) -> None:
    server_of_some.cut = 2_000_000
    with pytest.raises(DownloadError, match=r"broke after 1.9 of 4.9 MiB[\s\S]*again to go on"):
        download(["some"], cache=tmp_path, quiet=True)
    assert names_in(tmp_path) == ["some-file.pth.part", "some-file.pth.part.json"]
    with pytest.raises(DownloadError, match=r"broke after 3.8 of 4.9 MiB"):
        download(["some"], cache=tmp_path, quiet=True)
    server_of_some.cut = None
    download(["some"], cache=tmp_path, quiet=True)
    assert [part for _, part in server_of_some.asked] == [None, "bytes=2000000-", "bytes=4000000-"]
    assert (tmp_path / "some-file.pth").read_bytes() == CONTENT
    assert names_in(tmp_path) == ["some-file.pth"]


@pytest.mark.parametrize("versions", [True, False], ids=["with versions", "without versions"])
def test_a_server_that_sends_no_parts(server_of_some: Behaviour, tmp_path: Path, versions: bool) -> None:
    server_of_some.ranges, server_of_some.versions, server_of_some.cut = False, versions, 2_000_000
    with pytest.raises(DownloadError):
        download(["some"], cache=tmp_path, quiet=True)
    server_of_some.cut = None
    download(["some"], cache=tmp_path, quiet=True)
    assert (tmp_path / "some-file.pth").read_bytes() == CONTENT


def test_a_file_that_changed_in_between_is_fetched_anew(
    server: tuple[str, Behaviour], rows: list[OfficialWeights], tmp_path: Path
) -> None:
    address, behaviour = server
    rows.append(some_weights(address + PLACE, OTHER_CONTENT))
    behaviour.cut = 2_000_000
    with pytest.raises(DownloadError):
        download(["some"], cache=tmp_path, quiet=True)
    behaviour.files[PLACE], behaviour.cut = OTHER_CONTENT, None
    download(["some"], cache=tmp_path, quiet=True)
    assert behaviour.asked[1][1] == "bytes=2000000-"
    assert (tmp_path / "some-file.pth").read_bytes() == OTHER_CONTENT


def test_a_part_as_long_as_the_file(server_of_some: Behaviour, tmp_path: Path) -> None:
    server_of_some.cut = 2_000_000
    with pytest.raises(DownloadError):
        download(["some"], cache=tmp_path, quiet=True)
    (tmp_path / "some-file.pth.part").write_bytes(CONTENT + b"more")
    server_of_some.cut = None
    download(["some"], cache=tmp_path, quiet=True)
    assert (tmp_path / "some-file.pth").read_bytes() == CONTENT


def test_a_server_that_sends_another_part(server_of_some: Behaviour, tmp_path: Path) -> None:
    server_of_some.cut, server_of_some.shift = 2_000_000, 5
    with pytest.raises(DownloadError):
        download(["some"], cache=tmp_path, quiet=True)
    server_of_some.cut = None
    download(["some"], cache=tmp_path, quiet=True)
    assert [part for _, part in server_of_some.asked] == [None, "bytes=2000000-", None]
    assert (tmp_path / "some-file.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("notes", ["", "{}", "[1]", '{"address": "x", "version": "y", "total": 3}'])
def test_a_part_of_unknown_origin_is_not_used(server_of_some: Behaviour, tmp_path: Path, notes: str) -> None:
    (tmp_path / "some-file.pth.part").write_bytes(b"something")
    (tmp_path / "some-file.pth.part.json").write_text(notes)
    download(["some"], cache=tmp_path, quiet=True)
    assert server_of_some.asked == [(PLACE, None)]
    assert (tmp_path / "some-file.pth").read_bytes() == CONTENT


def test_nothing_is_kept_of_a_file_with_another_checksum(
    server: tuple[str, Behaviour], rows: list[OfficialWeights], tmp_path: Path
) -> None:
    rows.append(some_weights(server[0] + PLACE, OTHER_CONTENT))
    with pytest.raises(DownloadError, match="another checksum or size than the list says, and was removed"):
        download(["some"], cache=tmp_path, quiet=True)
    assert names_in(tmp_path) == []


def test_nothing_is_kept_of_a_file_of_another_size(
    server: tuple[str, Behaviour], rows: list[OfficialWeights], tmp_path: Path
) -> None:
    rows.append(some_weights(server[0] + PLACE, sha256_prefix="", bytes=7))
    with pytest.raises(DownloadError, match="another checksum or size"):
        download(["some"], cache=tmp_path, quiet=True)
    assert names_in(tmp_path) == []


def test_a_file_without_a_published_checksum(
    server: tuple[str, Behaviour], rows: list[OfficialWeights], tmp_path: Path
) -> None:
    rows.append(some_weights(server[0] + PLACE, sha256_prefix=""))
    found = download(["some"], cache=tmp_path, quiet=True)
    assert not found.files[0].checked
    assert "no checksum is published" in found.to_text()


@pytest.mark.parametrize(("status", "message"), [(404, "answered 404"), (403, "answered 403"), (503, "answered 503")])
def test_a_server_that_refuses(server_of_some: Behaviour, tmp_path: Path, status: int, message: str) -> None:
    server_of_some.status = status
    with pytest.raises(DownloadError, match=message):
        download(["some"], cache=tmp_path, quiet=True)
    assert names_in(tmp_path) == []


def test_a_web_page_in_place_of_the_file(server_of_some: Behaviour, tmp_path: Path) -> None:
    server_of_some.headers["Content-Type"] = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="a web page, not a file"):
        download(["some"], cache=tmp_path, quiet=True)


def test_no_server(rows: list[OfficialWeights], tmp_path: Path) -> None:
    with serve({}) as (address, _):
        pass
    rows.append(some_weights(address + PLACE))
    with pytest.raises(DownloadError, match=r"cannot reach 127.0.0.1:\d+: .*refused[\s\S]*--mirror"):
        download(["some"], cache=tmp_path, quiet=True)


def test_a_server_that_says_nothing(server_of_some: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(transfer.urllib.request, "urlopen", silent)
    with pytest.raises(DownloadError, match="timed out"):
        download(["some"], cache=tmp_path, quiet=True)


def test_a_full_disk(server_of_some: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(DownloadError, match="no room: 5 MiB are to come and 1 MiB are free"):
        download(["some"], cache=tmp_path, quiet=True)


def test_a_disk_that_fills_up(server_of_some: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "_receive", full)
    with pytest.raises(DownloadError, match=r"the disk is full[\s\S]*--cache"):
        download(["some"], cache=tmp_path, quiet=True)


def test_a_cache_that_cannot_be_made(server_of_some: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot write: Not a directory"):
        download(["some"], cache=tmp_path / "file" / "cache", quiet=True)


@pytest.mark.parametrize("place", [PLACE, "/some-file.pth"], ids=["as on the server", "flat"])
def test_a_mirror_by_address(rows: list[OfficialWeights], tmp_path: Path, place: str) -> None:
    rows.append(some_weights("https://nowhere.invalid" + PLACE))
    with serve({"/mirror" + place: CONTENT}) as (address, behaviour):
        download(["some"], cache=tmp_path, mirror=f"{address}/mirror/", quiet=True)
        with pytest.raises(DownloadError, match="404"):
            download(["some"], cache=tmp_path / "other", mirror=f"{address}/elsewhere", quiet=True)
    assert (tmp_path / "some-file.pth").read_bytes() == CONTENT
    assert behaviour.asked[0][0] == f"/mirror{PLACE}"


@pytest.mark.parametrize("place", [PLACE, "/some-file.pth"], ids=["as on the server", "flat"])
def test_a_mirror_that_is_a_folder(rows: list[OfficialWeights], tmp_path: Path, place: str) -> None:
    rows.append(some_weights("https://nowhere.invalid" + PLACE))
    original = tmp_path / "mirror" / place.lstrip("/")
    original.parent.mkdir(parents=True)
    original.write_bytes(CONTENT)
    download(["some"], cache=tmp_path / "cache", mirror=str(tmp_path / "mirror"), quiet=True)
    assert (tmp_path / "cache" / "some-file.pth").read_bytes() == CONTENT
    original.write_bytes(OTHER_CONTENT)
    with pytest.raises(DownloadError, match="another checksum"):
        download(["some"], cache=tmp_path / "other", mirror=str(tmp_path / "mirror"), quiet=True)
    with pytest.raises(DownloadError, match="not in this folder"):
        download(["some"], cache=tmp_path / "other", mirror=str(tmp_path / "other"), quiet=True)


def test_a_mirror_that_is_neither(rows: list[OfficialWeights], tmp_path: Path) -> None:
    rows.append(some_weights("https://nowhere.invalid" + PLACE))
    with pytest.raises(DownloadError, match="http:// or https://, or a folder"):
        download(["some"], cache=tmp_path, mirror="ftp://nowhere.invalid", quiet=True)


def test_weights_without_an_address(rows: list[OfficialWeights], tmp_path: Path) -> None:
    rows.append(some_weights(""))
    with pytest.raises(DownloadError, match=r"no address[\s\S]*weights convert some-file.pth"):
        download(["some"], cache=tmp_path, quiet=True)
    (tmp_path / "some-file.pth").write_bytes(CONTENT)
    download(["some"], cache=tmp_path / "cache", mirror=str(tmp_path), quiet=True)
    assert names_in(tmp_path / "cache") == ["some-file.pth"]


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no weights 'rtmdet_tinny'[\s\S]*Did you mean 'rtmdet_tiny'"):
        download(["rtmdet_tiny", "rtmdet_tinny"], cache=tmp_path, quiet=True)


def test_progress_in_plain_lines(server_of_some: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(["some"], cache=tmp_path)
    assert capsys.readouterr().err == "some (MiB) 5/5\n"


def test_verify(rows: list[OfficialWeights], tmp_path: Path) -> None:
    rows += [
        some_weights(""),
        some_weights("", OTHER_CONTENT, id="other", file="other.pth"),
        some_weights("", id="third", file="third.pth", sha256_prefix=""),
        some_weights("", id="absent", file="absent.pth"),
    ]
    assert verify(cache=tmp_path).ok
    assert "no downloaded weights" in verify(cache=tmp_path).to_text()
    for name in ("some-file.pth", "third.pth"):
        (tmp_path / name).write_bytes(CONTENT)
    assert [file.state for file in verify(cache=tmp_path).files] == ["right", "unchecked"]
    assert verify(cache=tmp_path).ok
    (tmp_path / "other.pth").write_bytes(CONTENT)
    assert {file.name: file.state for file in verify(cache=tmp_path).files}["other"] == "wrong"
    assert not verify(cache=tmp_path).ok
    assert not verify(["absent"], cache=tmp_path).ok
    assert verify(["some"], cache=tmp_path).ok
    assert json.loads(json.dumps(verify(cache=tmp_path).to_dict()))["ok"] is False


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YMIR_TMI_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "ymir-tmi" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "ymir-tmi" / "weights"
    monkeypatch.setenv("YMIR_TMI_CACHE", str(tmp_path / "chosen"))
    assert cache_folder() == tmp_path / "chosen"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"


def test_no_other_verb_imports_what_fetches() -> None:
    package = Path(table.__file__).parents[1]
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "urllib.request" in path.read_text() or "weights.transfer" in path.read_text()
    }
    assert users == {"weights/transfer.py", "weights/download.py"}
