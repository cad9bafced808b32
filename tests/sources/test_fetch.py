"""Fetch from a server that behaves like Zenodo, and from one that misbehaves; unpack hostile archives."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sources.zenodo import Zenodo, serve
from uwbench.cards.card import Card
from uwbench.cards.find import find_card
from uwbench.errors import FetchError, UsageError
from uwbench.sources import unpack
from uwbench.sources.download import Patience
from uwbench.sources.fetch import fetch_task
from uwbench.sources.unpack import unpack_zip

TAR = b"shard " * 100_000
OTHER = b"another " * 10_000


@pytest.fixture
def card() -> Card:
    return find_card("gtzan")


def fetch(card: Card, zenodo: Zenodo, data: Path, *, attempts: int = 4) -> tuple[list[Path], list[float]]:
    """Fetch, and return the paths and the seconds waited before each retry."""
    waits: list[float] = []
    patience = Patience(attempts=attempts, timeout_s=10, sleep=waits.append)
    return fetch_task(card, data, base_url=zenodo.url, patience=patience), waits


def record(**more: Any) -> Zenodo:
    return Zenodo(**{"record": 14722472, "files": {"gtzan_fold_0_0000000.tar": TAR}} | more)


def test_a_record_is_downloaded_whole_and_only_once(card: Card, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    with serve(record()) as zenodo:
        zenodo.files["gtzan_fold_1_0000000.tar"] = OTHER
        paths = fetch_task(card, tmp_path, base_url=zenodo.url, progress=lambda *step: steps.append(step))
        asked = len(zenodo.requests)
        again, _ = fetch(card, zenodo, tmp_path)
        assert len(zenodo.requests) == asked + 1  # the record, no file
    assert [path.name for path in paths] == ["gtzan_fold_0_0000000.tar", "gtzan_fold_1_0000000.tar"]
    assert paths == again
    assert paths[0] == tmp_path / "gtzan_genre" / "gtzan_fold_0_0000000.tar"
    assert [path.read_bytes() for path in paths] == [TAR, OTHER]
    assert steps[-1][1:] == (len(TAR) + len(OTHER),) * 2
    assert [step[1] for step in steps] == sorted(step[1] for step in steps)


def test_a_file_that_changed_on_disk_is_fetched_again(card: Card, tmp_path: Path) -> None:
    with serve(record()) as zenodo:
        (path,), _ = fetch(card, zenodo, tmp_path)
        path.write_bytes(TAR[:-1])
        (path,), _ = fetch(card, zenodo, tmp_path)
    assert path.read_bytes() == TAR


def test_a_cut_connection_is_resumed_where_it_broke(card: Card, tmp_path: Path) -> None:
    with serve(record(faults=["cut", "cut"])) as zenodo:
        (path,), _ = fetch(card, zenodo, tmp_path)
    half = len(TAR) // 2
    assert [byte_range for _, byte_range in zenodo.requests[1:]] == [
        None,
        f"bytes={half}-",
        f"bytes={half + half // 2}-",
    ]
    assert path.read_bytes() == TAR
    assert not list(path.parent.glob("*.part"))


def test_a_partial_file_of_an_earlier_run_is_resumed(card: Card, tmp_path: Path) -> None:
    folder = tmp_path / "gtzan_genre"
    folder.mkdir()
    (folder / "gtzan_fold_0_0000000.tar.part").write_bytes(TAR[:1000])
    with serve(record()) as zenodo:
        (path,), _ = fetch(card, zenodo, tmp_path)
    assert zenodo.requests[1][1] == "bytes=1000-"
    assert path.read_bytes() == TAR


def test_a_server_without_ranges_starts_over(card: Card, tmp_path: Path) -> None:
    with serve(record(faults=["cut", "norange"])) as zenodo:
        (path,), _ = fetch(card, zenodo, tmp_path)
    assert path.read_bytes() == TAR


def test_a_partial_file_with_wrong_content_is_deleted(card: Card, tmp_path: Path) -> None:
    folder = tmp_path / "gtzan_genre"
    folder.mkdir()
    (folder / "gtzan_fold_0_0000000.tar.part").write_bytes(b"x" * len(TAR))  # right size, wrong content
    with serve(record()) as zenodo:
        (path,), _ = fetch(card, zenodo, tmp_path)
    assert path.read_bytes() == TAR


def test_a_refused_range_starts_over(card: Card, tmp_path: Path) -> None:
    folder = tmp_path / "gtzan_genre"
    folder.mkdir()
    (folder / "gtzan_fold_0_0000000.tar.part").write_bytes(TAR[:1000])
    with serve(record(faults=["416"])) as zenodo:
        (path,), _ = fetch(card, zenodo, tmp_path)
    assert [byte_range for _, byte_range in zenodo.requests[1:]] == ["bytes=1000-", None]
    assert path.read_bytes() == TAR


def test_another_range_than_requested_is_refused(card: Card, tmp_path: Path) -> None:
    with serve(record(faults=["cut", "otherrange"])) as zenodo, pytest.raises(FetchError, match="another range"):
        fetch(card, zenodo, tmp_path)


def test_retry_after_is_respected(card: Card, tmp_path: Path) -> None:
    with serve(record(faults=["429:7", "503", "drop"], record_faults=["429:3"])) as zenodo:
        (path,), waits = fetch(card, zenodo, tmp_path)
    assert waits == [3, 7, 2, 4]  # Retry-After if it is longer than the back-off of 1, 2, 4, ... seconds
    assert path.read_bytes() == TAR


def test_each_wait_is_reported_with_its_reason(card: Card, tmp_path: Path) -> None:
    lines: list[str] = []
    patience = Patience(attempts=3, sleep=lambda _: None, tell=lines.append)
    with pytest.raises(FetchError, match="gave up after 3 attempts"):
        fetch_task(card, tmp_path, base_url="http://127.0.0.1:9", patience=patience)  # nobody listens there
    assert [line.partition("; ")[2] for line in lines] == ["attempt 2 of 3 in 1 s", "attempt 3 of 3 in 2 s"]
    assert all("/api/records/14722472 cannot be reached" in line for line in lines)


def test_waits_are_bounded(card: Card, tmp_path: Path) -> None:
    with serve(record(faults=["503:86400"])) as zenodo:
        _, waits = fetch(card, zenodo, tmp_path)
    assert waits == [300]


def test_it_gives_up_and_says_how_to_resume(card: Card, tmp_path: Path) -> None:
    with serve(record(faults=["503"] * 9)) as zenodo, pytest.raises(FetchError, match=r"503.*4 attempts.*resumes"):
        fetch(card, zenodo, tmp_path)


def test_a_missing_record_is_not_retried(card: Card, tmp_path: Path) -> None:
    with serve(record(record_faults=["404"])) as zenodo:
        with pytest.raises(FetchError, match="404"):
            fetch(card, zenodo, tmp_path)
        assert len(zenodo.requests) == 1


def test_redirects_are_followed_with_the_range(card: Card, tmp_path: Path) -> None:
    with serve(record(faults=["cut", "redirect"])) as zenodo:
        (path,), _ = fetch(card, zenodo, tmp_path)
    assert zenodo.requests[-1] == ("/moved/gtzan_fold_0_0000000.tar", f"bytes={len(TAR) // 2}-")
    assert path.read_bytes() == TAR


def test_a_file_with_a_wrong_checksum_is_deleted(card: Card, tmp_path: Path) -> None:
    with serve(record(faults=["corrupt", "corrupt"])) as zenodo, pytest.raises(FetchError, match="md5"):
        fetch(card, zenodo, tmp_path)
    assert not list((tmp_path / "gtzan_genre").glob("*.tar*"))


def test_a_damaged_download_is_repeated_once(card: Card, tmp_path: Path) -> None:
    with serve(record(faults=["corrupt"])) as zenodo:
        (path,), _ = fetch(card, zenodo, tmp_path)
    assert path.read_bytes() == TAR


@pytest.mark.parametrize("fault", ["lies", "longer"])
def test_a_wrong_content_length_is_noticed(card: Card, tmp_path: Path, fault: str) -> None:
    with serve(record(faults=[fault])) as zenodo:
        (path,), _ = fetch(card, zenodo, tmp_path)
    assert path.read_bytes() == TAR


def test_a_file_that_never_has_its_promised_size_fails(card: Card, tmp_path: Path) -> None:
    with serve(record(sizes={"gtzan_fold_0_0000000.tar": len(TAR) + 5})) as zenodo, pytest.raises(FetchError):
        fetch(card, zenodo, tmp_path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"names": {"gtzan_fold_0_0000000.tar": "../gtzan.tar"}}, "not a plain file name"),
        ({"names": {"gtzan_fold_0_0000000.tar": "/etc/passwd"}}, "not a plain file name"),
        ({"names": {"gtzan_fold_0_0000000.tar": ".fetched.json"}}, "not a plain file name"),
        ({"checksums": {"gtzan_fold_0_0000000.tar": "md5:short"}}, "an md5 is expected"),
        ({"sizes": {"gtzan_fold_0_0000000.tar": -1}}, "as the size"),
        ({"record_faults": ["html"]}, "not a Zenodo record"),
        ({"files": {}}, "contains no files"),
    ],
)
def test_a_malformed_record_is_refused(card: Card, tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with serve(record(**more)) as zenodo, pytest.raises(FetchError, match=message):
        fetch(card, zenodo, tmp_path)


def test_a_full_disk_is_noticed_before_the_download(card: Card, tmp_path: Path) -> None:
    sizes = {"gtzan_fold_0_0000000.tar": 1 << 60}
    with serve(record(sizes=sizes)) as zenodo:
        with pytest.raises(FetchError, match=r"needs 1152921504\.61 GB"):
            fetch(card, zenodo, tmp_path)
        assert len(zenodo.requests) == 1


def test_zips_are_unpacked_and_not_fetched_again(card: Card, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("gtzan_fold_0_0000000.tar", TAR)
        archive.writestr("more/gtzan_fold_1_0000000.tar", OTHER)
    with serve(Zenodo(14722472, {"gtzan.zip": packed.getvalue()})) as zenodo:
        paths, _ = fetch(card, zenodo, tmp_path)
        again, _ = fetch(card, zenodo, tmp_path)
        assert len(zenodo.requests) == 3
    folder = tmp_path / "gtzan_genre"
    assert paths == again == [folder / "gtzan_fold_0_0000000.tar", folder / "more" / "gtzan_fold_1_0000000.tar"]
    assert not (folder / "gtzan.zip").exists()


def test_a_record_of_two_tasks_is_fetched_once(tmp_path: Path) -> None:
    names = [f"{part}-000000.tar" for part in ("train-clean-100", "dev-clean", "test-clean")]
    with serve(Zenodo(14716252, dict.fromkeys(names, OTHER))) as zenodo:
        first, _ = fetch(find_card("librispeech_asr"), zenodo, tmp_path)
        second, _ = fetch(find_card("librispeech_mf"), zenodo, tmp_path)
    assert first == second
    assert [path for path, _ in zenodo.requests].count("/api/records/14716252") == 2
    assert len(zenodo.requests) == 5


def test_a_task_without_shards_cannot_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no shards"):
        fetch_task(find_card("mini_speech"), tmp_path)


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.create_system = 3  # Unix: the mode counts
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("a/../../outside"),
        member("/outside"),
        member("..\\outside"),
        member("C:/outside"),
        member("link", stat.S_IFLNK | 0o777),
        member("device", stat.S_IFCHR | 0o666),
        member("pipe", stat.S_IFIFO | 0o666),
    ],
)
def test_a_hostile_zip_writes_nothing(empty: Path, bad: zipfile.ZipInfo) -> None:
    folder = empty / "inside"
    folder.mkdir()
    path = folder / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member("good"), b"good")
        archive.writestr(bad, b"../outside")
    with pytest.raises(FetchError):
        unpack_zip(path, folder)
    assert sorted(file.relative_to(empty).as_posix() for file in empty.rglob("*")) == ["inside", "inside/x.zip"]


def test_a_link_in_the_folder_is_not_followed(empty: Path) -> None:
    folder, outside = empty / "inside", empty / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "a").symlink_to(outside)
    path = empty / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/file", b"x")
    with pytest.raises(FetchError, match="leads out"):
        unpack_zip(path, folder)
    assert not list(outside.iterdir())


def test_a_bomb_is_refused_before_it_is_unpacked(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_ALWAYS_ALLOWED", 1 << 20)
    path = empty / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1 << 24))
    with pytest.raises(FetchError, match="unpacks from"):
        unpack_zip(path, empty)
    assert list(empty.iterdir()) == [path]


def test_a_member_larger_than_its_header_says_is_refused(empty: Path) -> None:
    path = empty / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("lies", bytes(70_001))
    data = path.read_bytes()
    true, said = (70_001).to_bytes(4, "little"), (100).to_bytes(4, "little")
    assert data.count(true) == 2  # the local header and the directory
    path.write_bytes(data.replace(true, said))
    with pytest.raises(FetchError):
        unpack_zip(path, empty)
    assert list(empty.iterdir()) == [path]


def test_a_damaged_zip_is_refused(empty: Path) -> None:
    path = empty / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", OTHER)
    data = bytearray(path.read_bytes())
    data[1000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FetchError, match="cannot be unpacked"):
        unpack_zip(path, empty)


def test_compressed_tars_are_decompressed_for_reading_in_place(card: Card, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        info = tarfile.TarInfo("a.wav")
        info.size = len(OTHER)
        archive.addfile(info, io.BytesIO(OTHER))
    with serve(Zenodo(14722472, {"gtzan_fold_0_0000000.tar.gz": packed.getvalue()})) as zenodo:
        (path,), _ = fetch(card, zenodo, tmp_path)
    with tarfile.open(path, "r:") as archive:
        assert archive.getnames() == ["a.wav"]
