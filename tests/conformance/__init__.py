"""The Durable Streams protocol as others have it: the public suite for servers, and clients that are not ours."""
