"""The web console: pages made on the server, with one style sheet and no scripts."""
