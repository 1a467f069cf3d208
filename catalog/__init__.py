"""What exists: metric families, engine mappings and attribute dialects, declared once, as data."""
