"""Sounds that can be read only once, as ``aural caption <(record)`` and ``record | python ...`` give them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def named(pipe: Path, content: bytes) -> Iterator[Path]:
    """A named pipe, into which bytes are written once somebody opens it."""
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(content), daemon=True)
    writer.start()
    yield pipe
    writer.join(timeout=60)
    pipe.unlink()


@contextmanager
def streamed(content: bytes) -> Iterator[BinaryIO]:
    """The end of a pipe that bytes come out of; :func:`by_number` is its path."""
    out, into = os.pipe()

    def write() -> None:
        with os.fdopen(into, "wb") as end:
            end.write(content)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with os.fdopen(out, "rb") as stream:
        yield stream
        writer.join(timeout=60)


def by_number(stream: BinaryIO) -> Path:
    """``/dev/fd/63``, as a shell names what ``<(...)`` gives."""
    return Path(f"/dev/fd/{stream.fileno()}")
