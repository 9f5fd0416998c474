"""What stands for a database in both applications: users, who may do what in which document, and the key of tokens."""

import os

SECRET = os.environ.get("SECRET", "a key of at least thirty-two characters")

users = {1: "Ann", 2: "Bob", 3: "Cat", 4: "Dan"}
roles = {(7, 1): "owner", (7, 2): "editor", (7, 3): "viewer", (8, 1): "owner"}
"""By document and user."""
