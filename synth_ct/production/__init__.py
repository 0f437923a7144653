"""Radiographs in, a corpus out: each item once, whatever dies on the way. Needs a generator."""
