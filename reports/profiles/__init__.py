"""What a profile says: in words, tables and figures, on a page and in the terminal."""
