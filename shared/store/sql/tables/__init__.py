"""The tables: one module a table (two for the inbox), the only one that names it in SQL."""
