"""The reward services: a scorer served by Ray Serve, and who asks it.

client.py -> router.py -> replica.py -> rayalign.rewards, with budget.py's back-pressure before, batcher.py's batches
inside, and text_store.py beside, where a prompt's encoding is kept for all replicas. service.py starts it all.
"""
