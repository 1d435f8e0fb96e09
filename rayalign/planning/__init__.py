"""What a run will start where, what that takes of memory and time, and what to change if it does not fit.

    config, model's config.json --> costs (costs.py: measured on tensors without data) --+
    hardware: this cluster, or "8xh100" (hardware.py) ------------------------------------+--> plan.py --> text.py
    iteration: tickets, calls, pairs (work.py) -------------------------------------------+

Nothing is loaded and nothing is started.
"""
