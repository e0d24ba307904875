"""The dashboard's tests; a package, so that what they share is there until the last of them."""
