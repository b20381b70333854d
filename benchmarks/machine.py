"""What a run was made on: without it a figure means nothing."""

import datetime
import os
import platform
import shlex
import sqlite3
import sys
import tempfile
from importlib import metadata

import psutil

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def filesystem(path: str) -> str:
    """The type of the file system that holds `path`, such as "ext4"."""
    path = os.path.realpath(path)
    holding = [
        part
        for part in psutil.disk_partitions(all=True)
        if os.path.commonpath([path, part.mountpoint]) == part.mountpoint
    ]
    if not holding:
        return "unknown"
    return max(holding, key=lambda part: len(part.mountpoint)).fstype


def folder_on_disk(wanted: str | None) -> str:
    """A folder whose files are on a disk. Raises: SystemExit if there is none."""
    candidates = [wanted] if wanted else [tempfile.gettempdir(), "/var/tmp", os.getcwd()]
    for folder in candidates:
        if os.path.isdir(folder) and filesystem(folder) not in _IN_MEMORY:
            return folder
    raise SystemExit(f"benchmarks: not on a disk: {', '.join(candidates)}; use --folder")


def describe(folder: str) -> dict[str, str]:
    """Versions, hardware, date and the command that repeats the run."""
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "kernel": f"{platform.system()} {platform.release()}",
        "cpus": str(os.cpu_count()),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "file system": f"{filesystem(folder)} ({folder})",
        "kvsync": version("kvsync"),
    }


def version(distribution: str) -> str:
    """The installed version of a distribution. Raises: metadata.PackageNotFoundError."""
    return metadata.version(distribution)
