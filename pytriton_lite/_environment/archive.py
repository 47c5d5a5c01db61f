"""Unpacking the archive of an execution environment.

The archive is not trusted to stay in its folder. What makes that hold is a record of every
path made so far: the folder is new and private, so the record is the truth, and an entry
below anything but a recorded folder is refused before the disk is touched. No path is ever
resolved through a link.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Protocol

from pytriton_lite._environment.problem import EnvironmentProblem

# An environment with CUDA builds of the large frameworks is near 20 GB and 200 000 files; a
# decompression bomb is far above these.
MAX_TOTAL_BYTES = 64 << 30
MAX_ENTRIES = 1_000_000

# `tarfile` reads extended headers in one piece; a forged size would fill the memory.
_MAX_READ = 16 << 20
_CHUNK = 1 << 20
_BLOCK = 512
# Triton's text for a file that is no archive (observed on 2.51, also for a truncated one).
_NOT_AN_ARCHIVE = "archive_read_open_filename() failed."


class ArchiveError(EnvironmentProblem):
    """An archive cannot be unpacked."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Hashing:
    """Reads a file and hashes what was read."""

    def __init__(self, file: _Readable) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.hash.update(data)
        return data


class _Forward:
    """Unpacked bytes for `tarfile`, read once from start to end.

    `tarfile` steps back by one byte before each header, to see that the data is complete;
    a decompressor would start all over for that. So the last byte is kept.
    """

    def __init__(self, file: _Readable, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._position = 0
        self._last = b""
        self._is_stepped_back = False
        # Of the newest block-sized read: zeros mark the end of an archive.
        self.is_at_end_mark = False

    def read(self, size: int) -> bytes:
        if size > _MAX_READ:
            raise ArchiveError(f"A header says that it is {size} bytes long.")
        if self._is_stepped_back and size:
            self._is_stepped_back = False
            return self._last + (self.read(size - 1) if size > 1 else b"")
        parts = []
        missing = size
        while missing and (part := self._file.read(missing)):
            parts.append(part)
            missing -= len(part)
        data = b"".join(parts)
        if data:
            self._position += len(data)
            self._last = data[-1:]
        if self._position > self._max_bytes:
            raise ArchiveError(
                f"It holds more than the {self._max_bytes} bytes that are allowed "
                "(limit MAX_TOTAL_BYTES)."
            )
        self.is_at_end_mark = size == _BLOCK and data == bytes(_BLOCK)
        return data

    def tell(self) -> int:
        return self._position - self._is_stepped_back

    def seek(self, position: int) -> None:
        if position == self._position - 1:
            self._is_stepped_back = True
            return
        if position < self._position:
            raise ArchiveError("It is broken: an entry lies before its header.")
        self._is_stepped_back = False
        while self._position < position and self.read(min(position - self._position, _CHUNK)):
            pass

    def drain(self) -> None:
        """Read to the end, where compressed files have their check sum."""
        while self.read(_CHUNK):
            pass


def _decompressed(file: IO[bytes]) -> tuple[_Hashing, _Readable]:
    magic = file.read(6)
    file.seek(0)
    hashing = _Hashing(file)
    source: IO[bytes] = hashing  # type: ignore[assignment]
    if magic.startswith(b"\x1f\x8b"):
        return hashing, gzip.GzipFile(fileobj=source, mode="rb")
    if magic.startswith(b"BZh"):
        return hashing, bz2.BZ2File(source)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return hashing, lzma.LZMAFile(source)
    for start, name in ((b"PK", "zip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"7z", "7z")):
        if magic.startswith(start):
            raise ArchiveError(
                _NOT_AN_ARCHIVE, f"It is a {name} file; use a .tar.gz, as conda-pack writes."
            )
    return hashing, hashing


def hash_of(path: str) -> str:
    """Hash a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(
    path: str,
    folder: str,
    *,
    max_bytes: int = MAX_TOTAL_BYTES,
    max_entries: int = MAX_ENTRIES,
) -> str:
    """Unpack a tar archive into a new folder.

    Parameters
    ----------
    path
        A tar file, plain or packed by gzip, bzip2 or xz; the content decides, not the name.
    folder
        Is made, and removed again on failure.
    max_bytes
        Limit for all that is unpacked, headers included, in bytes.
    max_entries
        Limit for the number of entries.

    Returns
    -------
    str
        Hash of the archive file, as from `hash_of`.

    Raises
    ------
    ArchiveError
        It is no archive, or broken, unsafe, or above a limit, or cannot be written.
    """
    try:
        with open(path, "rb") as file, _explained():
            os.mkdir(folder, 0o700)
            hashing, source = _decompressed(file)
            forward = _Forward(source, max_bytes)
            _Unpacker(folder, forward, max_bytes, max_entries).run()
            forward.drain()
            while hashing.read(_CHUNK):
                pass
    except OSError as error:
        remove_folder(folder)
        raise ArchiveError(f"It cannot be read: {error.strerror or error}.") from error
    except BaseException:
        remove_folder(folder)
        raise
    return hashing.hash.hexdigest()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, gzip.BadGzipFile) as error:
        raise ArchiveError(
            f"{_NOT_AN_ARCHIVE} The file is no tar archive, or is broken or truncated: {error}.",
            "Pack the environment again; 'tar tf' must list it without an error.",
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ArchiveError(
                f"There is not enough space to unpack it: {error.strerror}.",
                "TMPDIR names the folder for temporary files; an unpacked folder in place of the "
                "archive needs no space.",
            ) from error
        if error.errno is None:  # of bz2 and gzip, which know no numbers
            raise ArchiveError(
                f"{_NOT_AN_ARCHIVE} The file is broken: {error}.",
                "Pack the environment again; 'tar tf' must list it without an error.",
            ) from error
        raise ArchiveError(f"It cannot be unpacked: {error}.") from error
    # `tarfile` does not catch all that forged numbers and names lead to.
    except (ValueError, OverflowError, RecursionError) as error:
        raise ArchiveError(f"{_NOT_AN_ARCHIVE} The file is broken: {error}.") from error


class _Unpacker:
    """One run through an archive."""

    def __init__(self, folder: str, source: _Forward, max_bytes: int, max_entries: int) -> None:
        self._folder = folder
        self._source = source
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._folders = {""}
        self._files: set[str] = set()
        self._links: set[str] = set()
        self._written = 0
        self._times: list[tuple[str, float]] = []

    def run(self) -> None:
        # The type stubs ask for a whole IO[bytes]; `tarfile` itself reads, tells and seeks.
        archive = tarfile.TarFile(
            fileobj=self._source,  # type: ignore[arg-type]
            mode="r",
            errorlevel=1,
            encoding="utf-8",
            errors="surrogateescape",
        )
        count = 0
        while (member := archive.next()) is not None:
            # It would keep every entry in memory.
            archive.members = []  # type: ignore[attr-defined]
            count += 1
            if count > self._max_entries:
                raise ArchiveError(
                    f"It has more than the {self._max_entries} entries that are allowed "
                    "(limit MAX_ENTRIES)."
                )
            self._add(archive, member)
        # `tarfile` takes a broken header for the end of the archive.
        if not self._source.is_at_end_mark:
            raise tarfile.ReadError("it has no end")
        # From the innermost: making a file changes its folder's time.
        for path, time in reversed(self._times):
            with contextlib.suppress(OSError, OverflowError, ValueError):
                os.utime(path, (time, time))

    def _add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = _safe_name(member.name)
        if member.size < 0:
            raise tarfile.ReadError("an entry has a negative size")
        if member.isdir():
            self._make_folders(name, member)
            if name:
                self._times.append((os.path.join(self._folder, name), member.mtime))
            return
        if not name:
            raise _unsafe(member, "has no name")
        self._make_folders(os.path.dirname(name), member)
        path = os.path.join(self._folder, name)
        self._replace(name, path, member)
        if member.issym():
            self._check_link(name, member)
            os.symlink(member.linkname, path)
            self._links.add(name)
        elif member.islnk():
            target = _safe_name(member.linkname)
            # As a hard link to a symbolic one would be a second name for that.
            if target not in self._files:
                raise _unsafe(member, f"is a hard link to '{target}', which is no file before it")
            os.link(os.path.join(self._folder, target), path, follow_symlinks=False)
            self._files.add(name)
        elif member.isreg():
            self._write(archive, member, path)
            self._files.add(name)
        else:
            raise _unsafe(member, "is a device, a pipe or of an unknown type")

    def _make_folders(self, name: str, member: tarfile.TarInfo) -> None:
        if name in self._folders:
            return
        self._make_folders(os.path.dirname(name), member)
        if name in self._links:
            raise _unsafe(member, f"goes through the link '{name}'")
        if name in self._files:
            raise _unsafe(member, f"lies below the file '{name}'")
        # The mode of an entry is not taken over: the owner must be able to write and remove.
        os.mkdir(os.path.join(self._folder, name), 0o755)
        self._folders.add(name)

    def _replace(self, name: str, path: str, member: tarfile.TarInfo) -> None:
        """Let a later entry of the same name win, as tar does; never write into the old one."""
        if name in self._folders:
            raise _unsafe(member, "has the name of a folder")
        if name in self._files or name in self._links:
            os.unlink(path)
            self._files.discard(name)
            self._links.discard(name)

    def _check_link(self, name: str, member: tarfile.TarInfo) -> None:
        target = member.linkname
        # A venv's own link to the interpreter it was made from; nothing is written through it.
        if os.path.dirname(name) == "bin" and os.path.basename(name).startswith("python"):
            return
        if os.path.isabs(target):
            raise _unsafe(member, f"is a link to the absolute path '{target}'")
        # The parents of the link are true folders, so that leading `..` can be counted; further
        # ones may stand behind a part that is a link itself.
        parts = [part for part in target.split("/") if part not in ("", ".")]
        ups = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
        if ups > name.count("/") or ".." in parts[ups:]:
            raise _unsafe(member, f"is a link to '{target}', which leaves the folder")

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        # A sparse file is small in the archive and large on disk.
        self._written += member.size
        if self._written > self._max_bytes:
            raise ArchiveError(
                f"Its files have more than the {self._max_bytes} bytes that are allowed "
                "(limit MAX_TOTAL_BYTES)."
            )
        source = archive.extractfile(member)
        assert source is not None
        # No setuid, setgid or sticky bit, and writable by nobody else.
        mode = (member.mode & 0o755) | 0o600
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with open(handle, "wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
            file.flush()
            # The time tells whether a .pyc belongs to its source.
            with contextlib.suppress(OverflowError, ValueError):
                os.utime(file.fileno(), (member.mtime, member.mtime))


def _safe_name(name: str) -> str:
    if "\0" in name:
        raise ArchiveError(f"It is not safe: the entry {name!r} has a zero byte in its name.")
    if name.startswith("/"):
        raise ArchiveError(f"It is not safe: the entry '{name}' has an absolute name.")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveError(f"It is not safe: the entry '{name}' has '..' in its name.")
    return "/".join(parts)


def _unsafe(member: tarfile.TarInfo, what: str) -> ArchiveError:
    return ArchiveError(f"It is not safe: the entry '{member.name}' {what}.")


def remove_folder(folder: str) -> None:
    """Remove a folder and all in it; links are not followed. A missing one is fine."""
    shutil.rmtree(folder, ignore_errors=True)
