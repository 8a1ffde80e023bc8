"""What runs on worker nodes: the batch of a Dask task, the guardian and its children, limits, figures, parts.

A batch goes from ``batch`` through ``supervisor`` and ``execution`` to a child (``child``, ``loop``, ``attempt``), which notes what happens in
a mapped file (``journal``) and makes parts of it (``finish``, ``tables``); what only Linux has is in ``system``.
"""
