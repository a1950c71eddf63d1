"""``python -m rtpose``."""

from rtpose.cli import main

main()
