"""Product: every CT of a cohort on the working grid, beside the film its radiograph would give."""
