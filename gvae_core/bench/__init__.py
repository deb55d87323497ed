"""Benchmarks that anyone can run: `python -m gvae_core.bench --help`."""
