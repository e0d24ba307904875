"""The run log: every result with its Grad-CAM grids, committed before the result is published."""
