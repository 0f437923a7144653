"""Networks. They know no data, no loss weights and no files: sizes in, tensors out."""
