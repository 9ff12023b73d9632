"""The `ikv` command."""
