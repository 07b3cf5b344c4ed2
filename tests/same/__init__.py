"""`make same BASE=<commit>`: proof that a change of the code changed nothing that it computes."""
