"""The systems that are compared, one module each: how the same work is run on them."""
