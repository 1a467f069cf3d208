"""What people look at: Grafana dashboards built from the catalog, and their checks."""
