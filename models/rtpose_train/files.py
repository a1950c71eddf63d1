"""Writing files completely or not at all."""

from pathlib import Path

from rtpose.errors import RecordingError


def write_file(file: Path, content: str | bytes) -> None:
    """Write a file under another name first, so that no half of it is ever found.

    Raises
    ------
    RecordingError
        If it cannot be written: disk full, folder missing or not writable.
    """
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RecordingError(f"{file}: cannot be written: {error.strerror}") from error
