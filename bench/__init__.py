"""Benchmarks against the tools that others use: `make bench`. Nothing imports this package."""
