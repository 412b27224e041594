"""``python -m ninefold``: the command."""

from ninefold.cli import main

main()
