"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

from dnl_video.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a file, which takes the file's place when the block ends without an error.

    Args:
        path: The file; the temporary name keeps its suffix.

    Raises:
        InputError: It cannot be written.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
