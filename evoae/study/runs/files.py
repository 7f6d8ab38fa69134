"""Files that are written whole, and that can be distinguished from damaged ones.

A file's digest is its SHA-256. A file that holds its own, near its beginning, is digested with 64
zeros in that place; `seal` fills them in and `check_seal` compares, byte for byte.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import stat
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from evoae.messages import display

SEAL = "sha256"  # the name under which a file holds its own digest
UNSEALED = "0" * 64
HEAD = 1 << 20  # bytes within which a seal stands
PATIENCE = 10.0  # seconds for which a file that is read is waited for
CURE = "move it away, and `evoae run` computes what is missing"


class Temporary:
    """A folder that is removed when nothing refers to this any more, and without a warning."""

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp(prefix="evoae-")
        weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)


def damaged(path: Path, why: object, cure: str = CURE) -> ValueError:
    """The error for a file that cannot be trusted: one line that says what to do.

    A file that nothing is wrong with, but that cannot be read from here, is not called damaged.
    """
    # a path that is too long for the system fills no screen
    shown = display(path) if isinstance(why, OSError) and why.errno == errno.ENAMETOOLONG else path
    match why:
        case PermissionError():
            return ValueError(f"{path}: cannot be read ({why.strerror}); ask its owner for access")
        case FileNotFoundError():
            return ValueError(f"{path}: is not there (any more); was its folder moved or removed?")
        case OSError() if why.errno is not None:
            return ValueError(f"{shown}: cannot be read ({why.strerror})")
    return ValueError(f"{path}: damaged ({' '.join(str(why).split())}); {cure}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name that becomes `path` if all goes well: no reader sees half a file.

    Raises OSError, with the path, if it cannot be written.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        mode = stat.S_IMODE(os.fstat(handle).st_mode)  # what the umask leaves of it
        os.close(handle)
        try:
            yield part
            os.chmod(part, mode)  # some libraries put another file in its place
            replace_file(part, path)
        finally:
            part.unlink(missing_ok=True)
    except SafetensorError as error:  # its own kind, for a full disk too
        raise OSError(f"{path}: cannot be written ({error})") from error
    except OSError as error:
        if error.strerror is None:
            raise OSError(f"{path}: cannot be written ({error})") from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def replace_file(source: Path, target: Path) -> None:
    """Give a file the name of another, which it replaces.

    Windows refuses this while somebody reads the other, so it is tried for some seconds there.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) is None or time.monotonic() > until:
                raise
            time.sleep(0.02)


# -- digests -------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: Path) -> None:
    """Give a file its own digest, in place of the first 64 zeros in its head."""
    found = digest(path)
    with path.open("r+b") as file:
        file.seek(file.read(HEAD).index(UNSEALED.encode()))
        file.write(found.encode())


def check_seal(path: Path, file: BinaryIO, said: object, cure: str = CURE) -> None:
    """Raise ValueError unless the digest of an open file is `said`, which was read in it."""
    if not isinstance(said, str) or len(said) != len(UNSEALED):
        raise damaged(path, "it holds no digest", cure)
    if digest_but_for(file, said.encode()) != said:
        raise damaged(path, "it does not fit its digest", cure)


def digest_but_for(file: BinaryIO, said: bytes) -> str:
    """SHA-256 of the bytes, with zeros where the head first says this."""
    found = hashlib.sha256(file.read(HEAD).replace(said, UNSEALED.encode(), 1))
    while block := file.read(HEAD):
        found.update(block)
    return found.hexdigest()


# -- JSON ----------------------------------------------------------------------------------------


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object, sealed, with null for numbers that are not finite."""
    with whole(path) as part:
        sealed = {SEAL: UNSEALED} | {k: v for k, v in finite(value).items() if k != SEAL}
        part.write_text(json.dumps(sealed, indent=1, allow_nan=False) + "\n")
        seal(part)


def finite(value: Any) -> Any:
    """A JSON value with null for what JSON has no number for: the loss of a diverged network."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    """Read an object, sealed or not. Raises ValueError if it is none."""
    return parsed(path)[0]


def read_sealed(path: Path) -> dict[str, Any]:
    """Read an object that holds its own digest. Raises ValueError if that does not fit."""
    value, content = parsed(path)
    check_seal(path, io.BytesIO(content), value.get(SEAL))
    return value


def parsed(path: Path) -> tuple[dict[str, Any], bytes]:
    """The object in a file, and the bytes that it was read from."""
    try:
        content = path.read_bytes()
        value = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(value, dict):
        raise damaged(path, "it holds no JSON object")
    return value, content
