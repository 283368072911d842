"""Jets as other tools take them, and as notebooks show them."""
