"""``dcompute doctor``: what a cluster and a storage look like from here and from its workers, before a run finds out."""
