"""Official downloads into the one layout that data.folders reads."""
