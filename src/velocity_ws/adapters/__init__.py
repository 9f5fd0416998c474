"""Adapters: between streams and the frameworks that people use. Public: one module for each. Imports none of them."""
