"""Loads files and tables into a store."""
