"""Training of the networks: random planes, losses, the loop, exported weights.

Only the commands import it, so that using a network never needs what training needs.
"""
