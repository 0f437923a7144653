"""One file for each trainable thing: its recipe, its losses, and how its weights come and go."""
