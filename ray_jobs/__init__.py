"""The edge: whole-run recipes, the step runner, the command line, and everything of Ray."""
