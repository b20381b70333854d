"""The log (`-wal`) of a database, as it lies in its file.

The file's size says nothing of its content, for a restarted log is written over the old one. What
it holds is read from the log itself (https://www.sqlite.org/fileformat2.html#walformat): frame n
belongs to the current log if it carries the salts of the log's header. Opening the file is
harmless, for SQLite holds no locks on it.
"""

import ctypes
import os
import struct
from contextlib import suppress

from kvsync.engine.descriptors import Descriptor

_HEADER, _FRAME_HEADER = 32, 24
_PAGE_SIZE_AT, _SALTS_AT, _FRAME_SALTS_AT, _SALTS = 8, 16, 8, 8

_SYNC_FILE_RANGE_WRITE = 2
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
"""Linux's: it has the disk begin to write, and does not wait until it has."""

if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


class Log:
    """It, opened for a look; empty where there is none, or it cannot be read. A context manager."""

    def __init__(self, path: str) -> None:
        self._file: Descriptor | None = None
        self.frame_size = 0
        """Bytes of one page and what goes before it; 0 if it is empty."""
        header = b""
        with suppress(OSError):
            self._file = Descriptor(path, os.O_RDONLY)
            header = os.pread(self._file.number, _HEADER, 0)
        if len(header) == _HEADER:
            (page_size,) = struct.unpack_from(">I", header, _PAGE_SIZE_AT)
            self.frame_size = _FRAME_HEADER + page_size
        self.salts = header[_SALTS_AT : _SALTS_AT + _SALTS]
        """Others whenever it begins anew."""

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def reaches(self, size: int) -> bool:
        """Whether the current log holds more than that many bytes. Raises: OSError."""
        if self._file is None or not self.frame_size:
            return False
        at = _HEADER + size // self.frame_size * self.frame_size + _FRAME_SALTS_AT
        return os.pread(self._file.number, _SALTS, at) == self.salts

    def begin_to_write(self, start: int, size: int) -> None:
        """Have the disk begin with so many bytes, where the system can; a hint, no promise."""
        if self._file is not None and _sync_file_range is not None:
            _sync_file_range(self._file.number, start, size, _SYNC_FILE_RANGE_WRITE)
