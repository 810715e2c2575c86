"""Benchmarks: ratios, each measured side by side in one run on one lab."""
