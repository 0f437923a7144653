"""A cohort on disk: canonical CT volumes, labelled cases, or an index of radiographs.

This is a product: its reader and writer live together, and later stages import nothing else of
what came before. `Cohort.open(folder)` reads; `gather` (used by sources and phantoms) writes.
"""

from synth_ct.cohort.case import Case, Kind, Split
from synth_ct.cohort.reader import Cohort

__all__ = ["Case", "Cohort", "Kind", "Split"]
