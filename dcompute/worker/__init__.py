"""What runs on worker nodes: the batch of a Dask task, the guardian and its children, limits, figures, parts.

A batch goes from ``batch`` through ``supervisor`` and ``execution`` to a child (``child``, ``loop``, ``attempt``).
What happens there is noted in a mapped file (``journal``), of which parts are made (``finish``, ``tables``).
What only Linux has is in ``system``.
"""
