"""CT to radiograph, and any radiograph to the one input the models know."""
