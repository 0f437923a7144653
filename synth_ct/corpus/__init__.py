"""Product: a corpus of synthetic CT on disk. What it holds, where it came from, how to read it."""

from synth_ct.corpus.cache import Cache
from synth_ct.corpus.dataset import Crops, Item, Volumes
from synth_ct.corpus.reader import Corpus
from synth_ct.corpus.row import Row
from synth_ct.corpus.split import split_of

open = Corpus.open  # noqa: A001  # read as `corpus.open(folder)`; not in __all__: `*` keeps open()

__all__ = ["Cache", "Corpus", "Crops", "Item", "Row", "Volumes", "split_of"]
