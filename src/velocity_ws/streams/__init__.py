"""Streams: answers, logs and progress that one writer says piece by piece, and that outlive every connection."""
