"""The composition root: configuration, HTTP, console, command line and the life of the parts."""
