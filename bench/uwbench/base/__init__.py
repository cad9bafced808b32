"""Small foundations, one idea per module. The list is closed: this is no place for helpers."""
