"""Whether what is measured has moved: references, tests, slices, and a stated budget of false pages."""
