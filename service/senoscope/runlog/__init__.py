"""The run log: every result with its Grad-CAM grids, committed before anyone is told of it."""
