"""A corpus as one HTML page that needs nothing else: no server, no network, no second file."""

from synth_ct.corpus.view.page import View, write_view

__all__ = ["View", "write_view"]
