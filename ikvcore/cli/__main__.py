"""`python -m ikvcore.cli`, where the `ikv` script is not on the path."""

from ikvcore.cli import main

main()
