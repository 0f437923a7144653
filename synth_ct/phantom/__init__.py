"""A procedural thorax and abdomen with labels: the embedded data set."""

from synth_ct.phantom.patient import Kind, Phantom, make_phantom
from synth_ct.phantom.shapes import Family

__all__ = ["Family", "Kind", "Phantom", "make_phantom"]
