"""The Autobahn test suite: an independent judge of how RFC 6455 and RFC 7692 are kept."""
