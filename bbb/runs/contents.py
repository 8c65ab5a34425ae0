"""The files of a user's own that a run reads, known by their content and not by their name."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bbb.networks import USERS_OWN


def own_files(config: Mapping[str, Any]) -> dict[str, Path]:
    """Find the files of the user's own that a configuration names: the paths by their keys."""
    network, dataset = str(config.get("network")), str(config.get("dataset"))
    code = USERS_OWN.fullmatch(network)
    files = {"network": Path(code["file"])} if code is not None else {}
    return files | ({"dataset": Path(dataset)} if dataset.endswith(".npz") else {})


def record_files(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Record path and SHA-256 of each of :func:`own_files`; without those that are gone, which their reader refuses."""
    files = {key: path.resolve() for key, path in own_files(config).items() if path.is_file()}
    return {key: {"path": str(path), "sha256": checksum(path)} for key, path in files.items()}


def checksums(record: object) -> dict[str, str]:
    """Read the SHA-256 of each file, by its key, from a record that may be damaged."""
    files = record if isinstance(record, Mapping) else {}
    return {key: str(file["sha256"]) for key, file in files.items() if isinstance(file, Mapping) and "sha256" in file}


def checksum(path: Path) -> str:
    """Compute the SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
