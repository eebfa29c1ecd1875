"""Cells, one a file: each its equations, its params, its state."""
