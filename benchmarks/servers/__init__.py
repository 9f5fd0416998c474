"""The Python servers that are compared: each module a program, written as its project's documentation does it."""
