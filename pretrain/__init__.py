"""Corpus to encoder: self-supervised pretraining."""
