"""The mushrooms of the UCI repository: downloaded or read from a file, checked, and made one-hot.

8,124 mushrooms with 22 nominal attributes each, edible or poisonous (Schlimmer 1987, after Lincoff 1981). The file has
a line for each: the class, ``e`` or ``p``, and a letter for each attribute.
"""

import hashlib
from collections import Counter
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import torch

from bbb.data.splits import DataError, Split
from bbb.system import write_aside, writing

URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/mushroom/agaricus-lepiota.data"
FILE = Path("mushroom") / "agaricus-lepiota.data"  # below the folder of the data sets
NUM_OF_CLASS = {"e": 4208, "p": 3916}
# The letters of each attribute, as the repository lists them in agaricus-lepiota.names; ? is a missing value.
LETTERS = (
    *("bcxfks", "fgys", "nbcgrpuewy", "tf", "alcyfmnps", "adfn", "cwd", "bn", "knbhgropuewy", "et", "bcuezr?"),
    *("fyks", "fyks", "nbcgopewy", "nbcgopewy", "pu", "nowy", "not", "ceflnpsz", "knbhrouwy", "acnsvy", "glmpuwd"),
)
LARGEST = 2**24  # bytes; the file has 373,704
SECONDS = 30  # without an answer


def load_mushrooms(
    file: Path | None, data_dir: Path, sha256: str | None = None, url: str | None = None
) -> tuple[Split, str]:
    """Read the mushrooms; they are downloaded first if no file is named and the folder has none.

    Args:
        file: the file; None reads :data:`FILE` in the folder of the data sets.
        data_dir: that folder.
        sha256: the checksum that the file must have, in hexadecimal digits; None only looks at what it holds.
        url: where it is downloaded from; by default :data:`URL`.

    Returns:
        One-hot attributes ``(8124, 126)``, 0 or 1, with the labels 1 for edible and 0 for poisonous; and the checksum.

    Raises:
        DataError: the file cannot be read or downloaded, has another checksum, or does not hold these mushrooms.
        bbb.system.StorageError: the downloaded file cannot be written.
    """
    path = file if file is not None else data_dir / FILE
    is_new, url = file is None and not path.is_file(), url or URL
    content = _download(url) if is_new else _read(path)
    name = url if is_new else str(path)
    checksum = hashlib.sha256(content).hexdigest()
    if sha256 is not None and checksum != sha256.lower():
        raise DataError(f"{name}: its sha256 checksum is {checksum}, not {sha256}; get the file again")
    split = _parse(name, content)
    if is_new:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, content)
    return split, checksum


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"file={path}: cannot be read ({error.strerror})") from None


def _download(url: str) -> bytes:
    try:
        with urlopen(url, timeout=SECONDS) as answer:
            return answer.read(LARGEST)
    except (URLError, OSError, ValueError) as error:
        if isinstance(error, HTTPError):  # it holds the answer, open
            error.close()
        reason = str(getattr(error, "reason", error)).replace("\n", " ")
        raise DataError(
            f"dataset=mushroom: cannot be downloaded from {url} ({reason:.100}); name the file, as in "
            "file=agaricus-lepiota.data, or use dataset=digits8x8"
        ) from None


def _parse(name: str, content: bytes) -> Split:
    """Turn the lines into one-hot attributes, and refuse whatever these mushrooms do not have."""
    rows = [line.split(",") for line in content.decode("latin-1").split()]
    for number, row in enumerate(rows, start=1):
        if len(row) != 1 + len(LETTERS):
            raise DataError(f"{name}: line {number} has {len(row)} values; must be a class and {len(LETTERS)} letters")
        for attribute, (letter, allowed) in enumerate(zip(row[1:], LETTERS, strict=True), start=1):
            if len(letter) != 1 or letter not in allowed:
                raise DataError(
                    f"{name}: line {number}: attribute {attribute} is {letter:.20}; must be one of {allowed}"
                )
    found = dict(sorted(Counter(row[0] for row in rows).items()))
    if found != NUM_OF_CLASS:
        counts = ", ".join(f"{num:,} of class {label:.20}" for label, num in found.items()) or "none"
        raise DataError(f"{name}: holds {counts}; must be 4,208 of class e (edible) and 3,916 of class p (poisonous)")
    one_hot = [[row[1 + i] == letter for i, letters in enumerate(LETTERS) for letter in letters] for row in rows]
    return Split(torch.tensor(one_hot).to(torch.uint8), torch.tensor([row[0] == "e" for row in rows]).long())
