"""Radiograph to CT: train the generator, make volumes, publish a corpus."""
