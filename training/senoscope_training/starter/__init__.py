"""The starter ensemble, and the recipe that `senoscope` builds it from."""
