SELECT * FROM incidents
WHERE incident_id = $id AND ($tenants IS NULL OR list_contains($tenants::VARCHAR[], tenant))
