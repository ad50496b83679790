"""The tables: one module a table, the only one that names it in SQL; plain functions over the ledger."""
