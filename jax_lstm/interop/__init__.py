"""Convert weights to and from the forms that other libraries and textbooks use: one form per file."""
