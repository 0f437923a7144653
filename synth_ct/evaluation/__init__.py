"""How near made volumes are to true ones: metrics, named protocols, tables and figures."""
