"""Reading the world, distrustfully: every importer writes one cohort and a quarantine report."""
