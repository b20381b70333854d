"""Where a store lies: from what the caller wrote to a path that SQLite can be trusted with."""

import os
import re
import stat

import psutil

from kvsync.errors import OpenError, ReadOnlyError, StorePathError, UnsafeFilesystemError

_SQLITE_URL = "sqlite:///"
_OTHER_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|file:")

# Locks and shared memory between machines, or between a guest and its host, do not work as WAL
# mode needs them (https://www.sqlite.org/wal.html#overview, https://www.sqlite.org/useovernet.html).
NETWORK_FILESYSTEMS = frozenset(
    "9p afs afpfs beegfs ceph cifs coda davfs fuse.ceph fuse.davfs2 fuse.gcsfuse fuse.glusterfs"
    " fuse.rclone fuse.s3fs fuse.sshfs fuse.vmhgfs-fuse gfs gfs2 glusterfs lustre ncpfs nfs nfs4"
    " ocfs2 orangefs prl_fs smb smb2 smb3 smbfs vboxsf virtiofs webdav".split()
)


_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite opens too; it would wait for ever for a FIFO's other end."""


def resolve(location: str | os.PathLike[str]) -> str:
    """The absolute path, links resolved, that `location` names. Touches no file.

    Takes a path or a URL `sqlite:///relative.db` or `sqlite:////absolute.db`.

    Raises: StorePathError for an empty path, ":memory:" and the URLs of other databases;
    TypeError for what is no path.
    """
    text = os.fspath(location)
    if not isinstance(text, str):
        raise TypeError(f"a store's path is a str or an os.PathLike of str, not {text!r}")
    if text.startswith(_SQLITE_URL):
        text = text[len(_SQLITE_URL) :]
    elif _OTHER_URL.match(text):
        raise StorePathError(f"cannot open {text!r}: use a path or a URL sqlite:///path")
    if not text or text == ":memory:":
        raise StorePathError(
            f"cannot open {text!r}: several processes share a store, so it needs a file"
            " (kvsync.temporary() makes a private one)"
        )
    if "\0" in text:
        raise StorePathError(f"cannot open {text!r}: a path cannot hold a NUL")
    return os.path.realpath(text)


def examine(path: str, *, allow_network: bool) -> None:
    """Make the folder, and refuse what would go wrong later. Opens nothing.

    Raises: OpenError, ReadOnlyError, UnsafeFilesystemError.
    """
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
        found = _stat(path)
        beside = [(name, _stat(name)) for name in (f"{path}{suffix}" for suffix in _BESIDE)]
    except PermissionError as error:
        raise ReadOnlyError(error.errno, f"cannot open {path}: {error.strerror}") from error
    except OSError as error:
        raise OpenError(error.errno, f"cannot open {path}: {error.strerror}") from error
    if found is not None:
        if stat.S_ISDIR(found.st_mode):
            raise OpenError(f"cannot open {path}: it is a directory")
        if not stat.S_ISREG(found.st_mode):
            raise OpenError(f"cannot open {path}: it is not a regular file")
        if found.st_nlink > 1:
            raise UnsafeFilesystemError(
                f"cannot open {path}: the file has {found.st_nlink} hard links, and SQLite keeps a"
                " separate log for each name; copy it to a file of its own"
            )
        if any(point == path for point, _ in _mounts()):
            raise UnsafeFilesystemError(
                f"cannot open {path}: the file is a mount of its own, so its log would lie in"
                " different folders for different processes; mount its folder instead"
            )
        for name, file in beside:
            if file is not None and not stat.S_ISREG(file.st_mode):
                raise OpenError(f"cannot open {path}: {name} is not a regular file")
    elif not os.access(folder, os.W_OK | os.X_OK):
        raise ReadOnlyError(f"cannot open {path}: no permission to create files in {folder}")
    if not allow_network and (kind := filesystem(path)) in NETWORK_FILESYSTEMS:
        raise UnsafeFilesystemError(
            f"cannot open {path}: it lies on {kind}, where SQLite's locks do not hold between"
            " machines; use a local disk, or allow_network=True if one machine alone uses it"
        )


def filesystem(path: str) -> str:
    """The type of the file system that holds `path`, such as "ext4"; "" where unknown."""
    # No mount point is touched here: a dead network mount would hang whoever asks it.
    mounts = [mount for mount in _mounts() if _holds(mount[0], path)]
    return max(reversed(mounts), key=lambda mount: len(mount[0]))[1] if mounts else ""


def _mounts() -> list[tuple[str, str]]:
    """Mount points and their types, the later ones on top; none where the system does not tell."""
    try:
        return [(each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True)]
    except OSError:
        return []


def _holds(mountpoint: str, path: str) -> bool:
    return os.path.isabs(mountpoint) and os.path.commonpath([mountpoint, path]) == mountpoint


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
