raise RuntimeError("no licence\nwas found")
