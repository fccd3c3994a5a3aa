"""HTML pages, charts, tables, drawings."""
