"""The REST API: `app.build_api` makes it from the running service's `Context`."""
