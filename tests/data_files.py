"""Made-up files of data sets that cannot be in the repository."""

import random

from bbb.data.mushrooms import LETTERS, NUM_OF_CLASS


def made_up_mushrooms(seed=0):
    """A file with the structure of the published mushrooms; its letters are random."""
    draw = random.Random(seed)
    classes = [label for label, num in NUM_OF_CLASS.items() for _ in range(num)]
    draw.shuffle(classes)
    return "".join(",".join([label, *(draw.choice(letters) for letters in LETTERS)]) + "\n" for label in classes)
