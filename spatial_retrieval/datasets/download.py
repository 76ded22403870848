"""Getting the data sets: mirrors, checksums, resuming, unpacking.

Every file has a list of addresses that are tried in turn. Its sha256 is checked where it is known.
Where nobody publishes one, the sum of the first download is written to ``checksums.json`` next to
the data, and later downloads must agree with it ("trust on first use": this notices a change, it
cannot notice that the first download was already wrong).

A download that stops continues where it stopped, if the server says that the file is still the
same. An archive is unpacked once, noted, and deleted; running again does only what is left.
"""

import gzip
import logging
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from spatial_retrieval.datasets.remotes import DATASETS, Remote
from spatial_retrieval.files import cache_dir, read_json, sha256_of, write_json

__all__ = ["default_root", "download", "fetch"]

_LOG = logging.getLogger(__name__)


def default_root() -> Path:
    """Folder that holds the data sets unless another is named."""
    return cache_dir() / "datasets"


def download(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    say: Callable[[str], None] = _LOG.info,
) -> Path:
    """Get a data set, or what is still missing of it, into ``root/name``.

    Args:
        name: one of ``DATASETS``.
        root: None for :func:`default_root`.
        say: told what happens, a line at a time.

    Returns:
        the data set's folder.

    Raises:
        ValueError: if the name is unknown, or a file is not the one it was.
        OSError: if no address of a file hits, or the disk is full; run again to go on.
    """
    if name not in DATASETS:
        raise ValueError(f"expected a data set of {', '.join(DATASETS)}, got {name!r}")
    folder = (Path(root) if root is not None else default_root()) / name
    folder.mkdir(parents=True, exist_ok=True)
    for remote in DATASETS[name]:
        fetch(remote, folder, say=say)
    for remote in DATASETS[name]:
        if remote.file.endswith(".rar"):
            say(f"unpack it with your own tool, next to it: {folder / remote.file}")
    return folder


def fetch(remote: Remote, folder: Path, *, say: Callable[[str], None] = _LOG.info) -> None:
    """Get one file of a data set and unpack it, unless that was done before.

    Raises:
        ValueError, OSError: as :func:`download`.
    """
    target, done = folder / remote.file, folder / ".unpacked" / remote.file
    if done.exists():
        return
    sums = folder / "checksums.json"
    known = read_json(sums) if sums.exists() else {}
    expected = remote.sha256 or known.get(remote.file)
    say(f"checking {remote.file}" if target.exists() else f"downloading {remote.file}")
    _from_mirrors(remote, target, expected)
    found = expected or sha256_of(target)
    if not expected:
        _check_whole(target)
        say(f"{remote.file}: no published checksum; trusted on first use, sha256 {found}")
    if known.get(remote.file) != found:
        write_json(sums, {**known, remote.file: found})
    if remote.unpack != "none":
        say(f"unpacking {remote.file}")
        _unpack(target, folder / remote.into, flat=remote.unpack == "flat images")
        done.parent.mkdir(exist_ok=True)
        done.touch()
        target.unlink()


def _check_whole(path: Path) -> None:
    """Read a compressed archive to its end, where its own checksum is.

    Raises:
        ValueError: if it does not hold what was compressed; it is removed.
    """
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return
    try:
        with gzip.open(path) as file:
            while file.read(2**20):
                pass
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        path.unlink()
        raise ValueError(
            f"{path}: arrived damaged ({error}) and was removed; run again to fetch it anew"
        ) from error


def _from_mirrors(remote: Remote, target: Path, sha256: str | None) -> None:
    import pooch

    reasons = []
    for url in remote.urls:
        try:
            pooch.retrieve(
                url,
                known_hash=f"sha256:{sha256}" if sha256 else None,
                fname=target.name,
                path=target.parent,
                downloader=_Resuming(target.with_name(f".{target.name}.part")),
            )
            return
        except OSError as error:
            reasons.append(f"{url}: {error}")
        except ValueError as error:
            if "hash" not in str(error).lower():
                raise
            reasons.append(f"{url}: its sha256 is not {sha256}")
    wrong = any("sha256" in reason for reason in reasons)
    kind = ValueError if wrong else OSError
    raise kind(f"{remote.file} could not be fetched; " + "; ".join(reasons))


@dataclass(frozen=True, slots=True)
class _Resuming:
    """A downloader for pooch that keeps what it has when it is interrupted."""

    part: Path

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        import requests

        note = self.part.with_suffix(".json")
        have, stamp = self._kept(note, url)
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": stamp}
        with requests.get(url, headers=headers, stream=True, timeout=(20, 60)) as hit:
            if have and hit.status_code == 416:  # nothing is left to send: start again
                note.unlink(missing_ok=True)
                return self(url, output_file, pooch)
            hit.raise_for_status()
            have = have if hit.status_code == 206 else 0
            write_json(note, {"url": url, "stamp": _stamp(hit.headers)})
            size = have + int(hit.headers.get("Content-Length", 0))
            self._receive(hit, have, size)
        if size > have and self.part.stat().st_size != size:
            raise OSError(f"the connection ended after {self.part.stat().st_size} of {size} bytes")
        shutil.move(self.part, output_file)
        note.unlink()

    def _kept(self, note: Path, url: str) -> tuple[int, str]:
        """Bytes that can be kept, and by what the server knows whether they are still current."""
        if not (note.exists() and self.part.exists()):
            return 0, ""
        try:
            value = read_json(note)
        except ValueError:
            return 0, ""
        stamp = value.get("stamp")
        usable = value.get("url") == url and isinstance(stamp, str) and stamp
        return (self.part.stat().st_size, stamp) if usable else (0, "")

    def _receive(self, hit: Any, have: int, size: int) -> None:
        from tqdm.auto import tqdm

        with (
            self.part.open("ab" if have else "wb") as file,
            tqdm(total=size or None, initial=have, unit="B", unit_scale=True, disable=None) as bar,
        ):
            for chunk in hit.iter_content(2**16):
                file.write(chunk)
                bar.update(len(chunk))


def _stamp(headers: Mapping[str, str]) -> str:
    """What identifies a version of a file; a weak ETag does not promise equal bytes."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _unpack(archive: Path, folder: Path, *, flat: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if flat:
                    _flat_image(tar, member, folder)
                elif member.isfile() or member.isdir():
                    tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{archive}: no readable archive ({error}); delete it and run again"
        ) from error


def _flat_image(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(member.name).name
    if not member.isfile() or not name.lower().endswith(".jpg"):
        return
    temporary = folder / f".{name}.part"
    with tar.extractfile(member) as source, temporary.open("wb") as file:  # type: ignore[union-attr]
        shutil.copyfileobj(source, file)
    temporary.replace(folder / name)
