"""``python -m feedstock_forge`` is the `feedstock` command."""

from .cli import main

main()
