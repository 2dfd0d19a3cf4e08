"""One file per dialect that clients speak: decode a request, encode events. Pure."""
