"""``python -m ninefold.cli``: the command, also where no script of its name is on the path."""

from ninefold.cli import main

main()
