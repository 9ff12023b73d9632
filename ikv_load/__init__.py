"""Loads files and tables into a store: the room of DuckDB and Arrow. `IKVWriter.load` opens its door."""
