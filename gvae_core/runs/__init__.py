"""Runs: a `spec` says what is trained, `run` trains and stores it, `many` computes a table's runs."""
