raise ImportError("half installed")
