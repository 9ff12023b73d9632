"""Storage backends, one technology a module; each is found through its entry point."""
