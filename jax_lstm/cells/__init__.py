"""Recurrent cells, one per file: equations, params and state."""
