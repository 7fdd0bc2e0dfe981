"""A disk of our own that is slow, fails, has a quota or goes away: a directory seen through FUSE.

    python -m tests.faulty_disk ROOT MOUNT FAULT      # until it is unmounted; FAULT is a file that may change

The file holds JSON: `until` a time, `slow` seconds for each call, or `hangs` (every call waits, as on a hard NFS mount
whose server is down), or `errno` for the calls named in `calls` (all others go through), or `room` bytes until a write
fails with `errno`. Kill the process, and the mount is there no more: every call then ends with ENOTCONN.
"""

import contextlib
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAN_FUSE = Path("/dev/fuse").exists() and os.geteuid() == 0


@dataclass
class Disk:
    """A mounted directory.

    Attributes:
        path: where it is mounted.
        root: where its files really are.
    """

    path: Path
    root: Path
    _fault: Path
    _server: int  # of a process; a fork of its parent may signal it too

    def fault(self, *, seconds: float = math.inf, **what: Any) -> None:
        """From now on, for so many seconds; no fault: it is sound again."""
        what["until"] = time.time() + seconds
        new = self._fault.with_suffix(".new")
        new.write_text(json.dumps(what), encoding="utf-8")
        new.replace(self._fault)

    def vanish(self) -> None:
        os.kill(self._server, signal.SIGKILL)


@contextlib.contextmanager
def faulty_disk(folder: Path) -> Iterator[Disk]:
    """A new disk below a folder, unmounted at the end."""
    root, mount, fault = folder / "root", folder / "mount", folder / "fault.json"
    root.mkdir(exist_ok=True)
    mount.mkdir(exist_ok=True)
    fault.write_text("{}", encoding="utf-8")
    command = [sys.executable, "-m", "tests.faulty_disk", str(root), str(mount), str(fault)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as server:
        try:
            end = time.monotonic() + 20
            while not os.path.ismount(mount) and time.monotonic() < end:
                time.sleep(0.01)
            assert os.path.ismount(mount)
            yield Disk(path=mount, root=root, _fault=fault, _server=server.pid)
        finally:
            subprocess.run(["umount", "-l", str(mount)], check=False, stderr=subprocess.DEVNULL)
            server.kill()


def serve(root: Path, mount: Path, fault: Path) -> None:
    """Serve it until it is unmounted."""
    import mfusepy

    class Faulty(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def __init__(self) -> None:
            self.written = 0

        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            return failing(name, found, self) if name in CALLS else found

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            seen = at(path).lstat()
            times = {name: getattr(seen, f"{name}_ns") for name in ("st_mtime", "st_atime", "st_ctime")}
            return {key: getattr(seen, key) for key in ("st_mode", "st_size", "st_uid", "st_gid", "st_nlink")} | times

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *(one.name for one in at(path).iterdir())]

        def statfs(self, path: str) -> dict[str, int]:
            seen = os.statvfs(at(path))
            return {key: getattr(seen, key) for key in dir(seen) if key.startswith("f_")}

        def open(self, path: str, flags: int) -> int:
            return os.open(at(path), flags)

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            return os.open(at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(fh, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            return os.pwrite(fh, data, offset)

        def truncate(self, path: str, length: int, fh: int | None = None) -> int:
            os.truncate(at(path), length)
            return 0

        def flush(self, path: str, fh: int) -> int:
            return 0

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            os.fsync(fh)
            return 0

        def release(self, path: str, fh: int) -> int:
            os.close(fh)
            return 0

        def mkdir(self, path: str, mode: int) -> int:
            at(path).mkdir(mode)
            return 0

        def rmdir(self, path: str) -> int:
            at(path).rmdir()
            return 0

        def unlink(self, path: str) -> int:
            at(path).unlink()
            return 0

        def rename(self, old: str, new: str) -> int:
            at(old).rename(at(new))
            return 0

        def symlink(self, target: str, source: str) -> int:
            at(target).symlink_to(source)
            return 0

        def readlink(self, path: str) -> str:
            return str(at(path).readlink())

        def link(self, target: str, source: str) -> int:
            at(target).hardlink_to(at(source))
            return 0

        def chmod(self, path: str, mode: int) -> int:
            at(path).chmod(mode)
            return 0

        def utimens(self, path: str, times: Any = None) -> int:
            os.utime(at(path), ns=times)
            return 0

    def at(path: str) -> Path:
        return Path(f"{root}{path}")

    def failing(name: str, call: Callable[..., Any], disk: Faulty) -> Callable[..., Any]:
        def act(*given: Any) -> Any:
            how = json.loads(fault.read_text(encoding="utf-8"))
            if (left := how.get("until", 0) - time.time()) > 0:
                time.sleep(left if "hangs" in how else how.get("slow", 0))
                if name == "write" and "room" in how:
                    disk.written += len(given[1])
                    if disk.written > how["room"]:
                        raise mfusepy.FuseOSError(how["errno"])
                elif "errno" in how and "room" not in how and name in how.get("calls", CALLS):
                    raise mfusepy.FuseOSError(how["errno"])
            try:
                return call(*given)
            except OSError as error:
                raise mfusepy.FuseOSError(error.errno or errno.EIO) from error

        return act

    mfusepy.FUSE(Faulty(), str(mount), foreground=True, nothreads=True, attr_timeout=0, entry_timeout=0)


CALLS = ("getattr", "readdir", "statfs", "open", "create", "read", "write", "truncate", "flush", "fsync", "release")
CALLS += ("mkdir", "rmdir", "unlink", "rename", "symlink", "readlink", "link", "chmod", "utimens")

if __name__ == "__main__":
    serve(*map(Path, sys.argv[1:]))
