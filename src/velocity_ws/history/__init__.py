"""History: what rooms remember, so that a client that comes back gets what it missed. Knows no client and no hook."""
