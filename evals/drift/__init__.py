"""Whether what is measured now still is what was measured before."""
