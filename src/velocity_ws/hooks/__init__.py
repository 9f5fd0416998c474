"""Hooks: the application's functions, registered, checked, bound to what they ask for. Knows no connection."""
