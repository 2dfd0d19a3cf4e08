"""Files that clients send: received on disk, and looked at before anybody else sees them."""
