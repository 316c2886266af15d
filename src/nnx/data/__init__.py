"""Where samples come from: toy data sets, tables, images."""
