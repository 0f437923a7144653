"""Encoder and labelled cases to results of each fold."""
