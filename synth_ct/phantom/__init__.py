"""A procedural thorax and abdomen with labels: the embedded data set."""
