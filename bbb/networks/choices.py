"""How networks are named; read without PyTorch, whose import takes a second."""

import re

USERS_OWN = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_]\w*)")
