"""Small foundations, one idea per module; a closed list, not a place for helpers."""
