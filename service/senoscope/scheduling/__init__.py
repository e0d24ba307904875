"""From fields of view to the engine: lanes, batches, the ensemble in use and its intensity range."""
