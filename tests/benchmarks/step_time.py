"""Time a training step of this project against that of an ordinary network, and print a table.

    python -m tests.benchmarks.step_time                               all contenders, on random images
    python -m tests.benchmarks.step_time --only blundell --pairs 5     those with this in their names
    python -m tests.benchmarks.step_time --json FILE                   also the rows as data

Each contender has a process of its own and takes turns with one of its floor: see ``paired``.
"""

from tests.benchmarks.contenders import CONTENDERS, FLOORS
from tests.benchmarks.report import chosen_by, parser, print_surroundings, rules_of, surroundings, table, write_json


def main() -> None:
    """Read the arguments and print the table."""
    arguments = parser(__doc__, "--only", "--pairs", "--turns", "--threads", "--json").parse_args()
    about = surroundings(arguments.threads)
    print_surroundings(about)
    rows = table(chosen_by(CONTENDERS, arguments.only), FLOORS, rules_of(arguments))
    write_json(arguments.json, about, rows=rows)


if __name__ == "__main__":
    main()
