"""The report of a package: one HTML page that needs no network."""
