"""The values that calls return and take; users find them in `mitos.types`."""
