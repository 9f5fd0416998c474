"""This process: descriptors, sockets, signals, the collector, its siblings. Knows no server and no client."""
