"""Product: a corpus of synthetic CT on disk. What it holds, where it came from, how to read it."""

from synth_ct.corpus.reader import Corpus
from synth_ct.corpus.row import Row

__all__ = ["Corpus", "Row"]
